//! A capture holds all that the doctor reads, and nothing that says whose machine it is.

use super::*;
use crate::doctor::facts::{Facts, Lock};
use crate::doctor::purpose::Purpose;
use sinew_rt::topology::Topology;

fn unpacked(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    unpack(pack(files, Vec::new()).unwrap().as_slice(), dir.path()).unwrap();
    dir
}

#[test]
fn the_facts_of_a_capture_are_those_of_this_machine() {
    let files = contents::collect(Path::new("/"), Duration::from_millis(10));
    let dir = unpacked(&files);
    let topology = Topology::read_from(dir.path()).unwrap();
    let purpose = Purpose::any(&topology);
    let there = Facts::captured(dir.path(), topology, purpose);
    let here = Facts::at_a_glance(Lock::Look).unwrap();
    assert_eq!(there.topology, here.topology);
    let mut kernel = here.kernel.clone();
    if let (Some(there), Some(here)) =
        (&there.kernel.throttling.group, &mut kernel.throttling.group)
    {
        here.path.clone_from(&there.path);
    }
    // Only parameters that the doctor judges are kept.
    kernel.command_line = there.kernel.command_line.clone();
    assert_eq!(there.kernel, kernel);
    let group = |privileges: &sinew_rt::kernel::Privileges| {
        // Without the names of the groups.
        privileges.rt_group.clone().map(|group| (group.runtime_us, group.period_us))
    };
    assert_eq!(group(&there.privileges), group(&here.privileges));
    let rest = |privileges: &sinew_rt::kernel::Privileges| sinew_rt::kernel::Privileges {
        rt_group: None,
        ..privileges.clone()
    };
    assert_eq!(rest(&there.privileges), rest(&here.privileges));
    assert_eq!(there.interrupts, here.interrupts);
    assert_eq!(there.nics, here.nics);
    assert_eq!(there.latency.bound_us, here.latency.bound_us);
    let settings = |mut settings: crate::doctor::facts::Settings| {
        // Grows while nobody disciplines the clock.
        settings.clock = settings.clock.map(|clock| crate::doctor::facts::Discipline {
            estimated_error_us: 0,
            maximum_error_us: 0,
            ..clock
        });
        format!("{settings:?}")
    };
    assert_eq!(settings(there.settings), settings(here.settings));
    let window = there.window.expect("two readings");
    assert!(window.millis >= 10);
    for counters in [&window.before, &window.after] {
        assert_eq!(
            counters.tasks.as_ref().unwrap().whole_machine(),
            here.counters.tasks.as_ref().unwrap().whole_machine()
        );
        assert_eq!(counters.interrupts.is_some(), here.counters.interrupts.is_some());
        assert_eq!(counters.udp_dropped.is_some(), here.counters.udp_dropped.is_some());
        assert_eq!(counters.stolen_ticks.is_some(), here.counters.stolen_ticks.is_some());
        assert!(counters.faults.is_some());
    }
}

/// A machine on which everything private says SECRET, or is a hardware address.
#[test]
fn nothing_private_is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let mac = "enx0242ac110002";
    let container = "860dfad5d7f2435c8407e1de67a02103";
    write("proc/cmdline", "root=UUID=SECRET isolcpus=1 token=SECRET -- SECRET");
    write("proc/cpuinfo", "model name\t: X\nSerial\t\t: SECRET\n");
    write("proc/self/status", "Name:\tSECRET\nUid:\t0\t0\t0\t0\nCpus_allowed_list:\t0\n");
    write(
        "proc/self/cgroup",
        &format!("5:devices:/SECRET\n1:cpu:/SECRET.slice/{container}\n0::/\n"),
    );
    write(&format!("sys/fs/cgroup/cpu/SECRET.slice/{container}/cpu.rt_runtime_us"), "0");
    write(&format!("sys/fs/cgroup/cpu/SECRET.slice/{container}/cpu.rt_period_us"), "1000000");
    write("sys/class/net/wg-SECRET/operstate", "up");
    write("sys/class/net/wg-SECRET/uevent", "DEVTYPE=wireguard\n");
    let zeros = "0 ".repeat(15);
    let task = |name: &str, priority: u8| {
        let policy = u8::from(priority > 0);
        format!(
            "7 ({name}) S 4242 1 1 0 0 4194560 9 9 9 9 9 9 9 0 0 0 0 0 0 {zeros}17 1 {priority} {policy} 0"
        )
    };
    write("proc/7/task/7/stat", &task("SECRET", 0));
    write("proc/8/task/8/stat", &task("loop", 80));
    write("proc/7/cmdline", "SECRET");
    write("proc/7/environ", "SECRET");
    write("proc/sys/kernel/hostname", "SECRET");
    write("proc/sys/kernel/osrelease", "6.1");
    write("boot/config-6.1", "CONFIG_PREEMPT=y\nCONFIG_DEFAULT_HOSTNAME=\"SECRET\"\n");
    write("etc/default/irqbalance", "SECRET=1\nIRQBALANCE_BANNED_CPULIST=1\n");
    write("sys/class/dmi/id/product_serial", "SECRET");
    write(&format!("sys/class/net/{mac}/address"), "02:42:ac:11:00:02");
    write(&format!("sys/class/net/{mac}/operstate"), "up");
    write(&format!("sys/class/net/{mac}/device/uevent"), "DRIVER=x\nSERIAL=SECRET\n");
    write("proc/interrupts", &format!("  CPU0\n 9:  1  IO-APIC 9-edge {mac}\n"));
    let files = private::without_names(contents::collect(dir.path(), Duration::ZERO));
    assert!(files.len() > 10, "{files:?}");
    for (path, content) in &files {
        let content = String::from_utf8_lossy(content);
        for secret in ["SECRET", "0242ac110002", "02:42", container, "4242"] {
            assert!(!path.contains(secret) && !content.contains(secret), "{path}: {content}");
        }
    }
    // And it still belongs together.
    let there = unpacked(&files);
    assert_eq!(sinew_rt::kernel::Privileges::read(there.path()).rt_group.unwrap().runtime_us, 0);
    let tasks = sinew_rt::kernel::Tasks::read(there.path()).unwrap();
    let names: Vec<&str> = tasks.all.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["program", "loop"], "a real-time task is named");
    let line = std::fs::read_to_string(there.path().join("proc/cmdline")).unwrap();
    assert_eq!(line, "isolcpus=1");
}

#[test]
fn an_archive_that_leads_out_of_its_directory_is_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    // `set_path` refuses such a name itself.
    let name = b"../outside";
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &b"x"[..]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let error = unpack(archive.into_inner().unwrap().as_slice(), &inside).unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    assert!(!dir.path().join("outside").exists());
}
