//! The machine's network devices, and what delays a frame in them.

use std::ffi::{c_char, c_void};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use sinew_rt::files;

/// Network devices looked at.
const MAX_DEVICES: usize = 64;

/// A network device with hardware (or a hypervisor) behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) name: String,
    /// `pci`, `usb`, `virtio`, ...; `None` when the kernel does not say.
    pub(crate) bus: Option<String>,
    pub(crate) wireless: bool,
    /// Whether it is switched on and has a link.
    pub(crate) up: bool,
    /// Its interrupts.
    pub(crate) interrupts: Vec<u32>,
    /// `None` when its driver has no such setting, or it cannot be asked.
    pub(crate) coalescing: Option<Coalescing>,
    /// Energy-efficient Ethernet.
    pub(crate) saves_energy: Option<bool>,
}

/// How long a device waits before it interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coalescing {
    pub(crate) rx_us: u32,
    pub(crate) tx_us: u32,
    pub(crate) adaptive_rx: bool,
    pub(crate) adaptive_tx: bool,
}

/// In a captured tree, what ethtool(8) would say is in `probed/ethtool/<device>/`.
pub(crate) const CAPTURED: &str = "probed/ethtool";

/// The devices under `root`; asks their drivers only when `live`.
pub(crate) fn devices(root: &Path, live: bool) -> Option<Vec<Nic>> {
    let names = files::names(root, "sys/class/net")?;
    let one = |name: String| {
        let base = format!("sys/class/net/{name}");
        // Loopback, bridges and tunnels have no device behind them.
        let uevent = files::text(root, &format!("{base}/device/uevent"))?;
        let modalias = files::text(root, &format!("{base}/device/modalias")).or_else(|| {
            uevent.lines().find_map(|line| Some(line.strip_prefix("MODALIAS=")?.into()))
        });
        let asked = match live {
            true => Ethtool::open().ok(),
            false => None,
        };
        let kept = |what: &str| files::number::<u32>(root, &format!("{CAPTURED}/{name}/{what}"));
        let coalescing = match &asked {
            Some(ethtool) => ethtool.coalescing(&name),
            None => kept("rx_us").map(|rx_us| Coalescing {
                rx_us,
                tx_us: kept("tx_us").unwrap_or(0),
                adaptive_rx: kept("adaptive_rx") == Some(1),
                adaptive_tx: kept("adaptive_tx") == Some(1),
            }),
        };
        let saves_energy = match &asked {
            Some(ethtool) => ethtool.saves_energy(&name),
            None => kept("eee").map(|on| on != 0),
        };
        Some(Nic {
            bus: modalias.and_then(|alias| Some(alias.split_once(':')?.0.to_owned())),
            wireless: root.join(format!("{base}/wireless")).exists()
                || uevent.contains("DEVTYPE=wlan")
                || files::text(root, &format!("{base}/uevent"))
                    .is_some_and(|text| text.contains("DEVTYPE=wlan")),
            up: files::text(root, &format!("{base}/operstate")).as_deref() == Some("up"),
            interrupts: interrupts(root, &base),
            coalescing,
            saves_energy,
            name,
        })
    };
    Some(names.into_iter().take(MAX_DEVICES).filter_map(one).collect())
}

/// A device's interrupts; those of a virtio device belong to the PCI device around it.
fn interrupts(root: &Path, base: &str) -> Vec<u32> {
    ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .filter_map(|dir| files::numbered(root, &format!("{base}/{dir}")))
        .find(|numbers| !numbers.is_empty())
        .or_else(|| Some(vec![files::number(root, &format!("{base}/device/irq"))?]))
        .unwrap_or_default()
}

/// The ioctl behind ethtool(8).
struct Ethtool(std::net::UdpSocket);

/// uapi/linux/ethtool.h
const ETHTOOL_GCOALESCE: u32 = 0x0000_000e;
const ETHTOOL_GEEE: u32 = 0x0000_0044;
const SIOCETHTOOL: u32 = 0x8946;

/// `struct ethtool_coalesce`: the command and 22 numbers.
#[repr(C)]
struct CoalesceRequest {
    command: u32,
    rx_us: u32,
    rx_frames: u32,
    rx_us_irq: u32,
    rx_frames_irq: u32,
    tx_us: u32,
    tx_frames: u32,
    tx_us_irq: u32,
    tx_frames_irq: u32,
    stats_block_us: u32,
    adaptive_rx: u32,
    adaptive_tx: u32,
    rest: [u32; 11],
}

/// `struct ethtool_eee`.
#[repr(C)]
struct EeeRequest {
    command: u32,
    supported: u32,
    advertised: u32,
    partner_advertised: u32,
    active: u32,
    enabled: u32,
    tx_lpi_enabled: u32,
    tx_lpi_timer: u32,
    reserved: [u32; 2],
}

impl Ethtool {
    fn open() -> io::Result<Self> {
        std::net::UdpSocket::bind(("127.0.0.1", 0)).map(Self)
    }

    fn coalescing(&self, name: &str) -> Option<Coalescing> {
        let mut request = CoalesceRequest {
            command: ETHTOOL_GCOALESCE,
            rx_us: 0,
            rx_frames: 0,
            rx_us_irq: 0,
            rx_frames_irq: 0,
            tx_us: 0,
            tx_frames: 0,
            tx_us_irq: 0,
            tx_frames_irq: 0,
            stats_block_us: 0,
            adaptive_rx: 0,
            adaptive_tx: 0,
            rest: [0; 11],
        };
        // SAFETY: the structure has the layout of `struct ethtool_coalesce`, which the command fills.
        unsafe { self.ask(name, (&raw mut request).cast()) }?;
        Some(Coalescing {
            rx_us: request.rx_us,
            tx_us: request.tx_us,
            adaptive_rx: request.adaptive_rx != 0,
            adaptive_tx: request.adaptive_tx != 0,
        })
    }

    fn saves_energy(&self, name: &str) -> Option<bool> {
        let mut request = EeeRequest {
            command: ETHTOOL_GEEE,
            supported: 0,
            advertised: 0,
            partner_advertised: 0,
            active: 0,
            enabled: 0,
            tx_lpi_enabled: 0,
            tx_lpi_timer: 0,
            reserved: [0; 2],
        };
        // SAFETY: the structure has the layout of `struct ethtool_eee`, which the command fills.
        unsafe { self.ask(name, (&raw mut request).cast()) }?;
        Some(request.enabled != 0)
    }

    /// # Safety
    /// `request` points to the structure of the command in its first word.
    unsafe fn ask(&self, name: &str, request: *mut c_char) -> Option<()> {
        // SAFETY: all zeros is an empty `ifreq`.
        let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero and ends the name.
        if name.len() >= interface.ifr_name.len() {
            return None;
        }
        for (to, from) in interface.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as c_char;
        }
        interface.ifr_ifru.ifru_data = request;
        let argument: *mut c_void = (&raw mut interface).cast();
        // SAFETY: the kernel reads the `ifreq` and fills the structure that the caller vouches for;
        // both live until the call returns.
        let status = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL as _, argument) };
        (status == 0).then_some(())
    }
}
