//! The loop between keyboard, panels and screen. The terminal is given back however it ends.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::draw;
use super::state::{Key, Top, View};
use super::watch::Watch;
use crate::exit::{Exit, Failure, Outcome};

/// How soon a signal is answered: nothing else wakes the loop for one.
const SIGNALS: Duration = Duration::from_millis(100);

/// Gives the terminal back, also where the loop fails. A panic does it by the hook that
/// `ratatui::try_init` sets.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone takes nothing, not even what would be said about that.
        let _gone = ratatui::try_restore();
    }
}

/// Refuses before anything is drawn where nobody could see it.
pub(crate) fn check() -> Result<(), Failure> {
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage(
        "sinew top draws on a terminal, and this is none; `--once` prints the figures as text, \
         `--json -` for programs",
    ))
}

pub(crate) fn run(mut top: Top, mut watch: Watch) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::machine(format!("cannot wait for signals: {error}")))?;
    }
    let broken = |error: std::io::Error| {
        Failure::machine(format!("cannot use this terminal: {error}; `--once` prints text"))
    };
    let _restore = Restore;
    let mut terminal = ratatui::try_init().map_err(broken)?;
    top.see(watch.look());
    let mut looked_at = Instant::now();
    // The first interval is short, so that there is something to see soon.
    let mut wait = Duration::from(top.period).min(Duration::from_millis(200));
    loop {
        terminal
            .draw(|frame| {
                let area = frame.area();
                top.height = draw::body_height(&top, area.height);
                draw::draw(&top, area, frame.buffer_mut());
            })
            .map_err(broken)?;
        // Until a key, a signal, another size or the next look.
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Exit::Done);
            }
            let left = wait.saturating_sub(looked_at.elapsed());
            if left.is_zero() && !top.paused {
                top.see(watch.look());
                looked_at = Instant::now();
                wait = top.period.into();
                break;
            }
            if is_gone(Duration::ZERO).map_err(broken)? {
                return Ok(Exit::Done);
            }
            // What was read already first; then wait for more.
            if !event::poll(Duration::ZERO).map_err(broken)? {
                let patience = if top.paused { SIGNALS } else { left.min(SIGNALS) };
                if is_gone(patience).map_err(broken)? {
                    return Ok(Exit::Done);
                }
                continue;
            }
            match event::read().map_err(broken)? {
                Event::Key(event) => {
                    let Some(key) = meaning(event) else { continue };
                    if !top.press(key) {
                        return Ok(Exit::Done);
                    }
                    wait = top.period.into();
                    break;
                }
                Event::Resize(..) => break,
                _ => {}
            }
        }
    }
}

/// Waits for input or a signal for so long, and says whether the terminal is gone: closed, or its
/// connection lost. Crossterm, told to read from one, tries again for ever.
fn is_gone(patience: Duration) -> std::io::Result<bool> {
    let mut input = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
    // Rounded up, so that the rest of a millisecond is no busy loop.
    let ms = patience.as_micros().div_ceil(1_000);
    let ms = i32::try_from(ms).unwrap_or(i32::MAX);
    // SAFETY: `input` is one valid pollfd for the whole call.
    if unsafe { libc::poll(&raw mut input, 1, ms) } < 0 {
        let error = std::io::Error::last_os_error();
        return if error.kind() == std::io::ErrorKind::Interrupted {
            Ok(false)
        } else {
            Err(error)
        };
    }
    Ok(input.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0)
}

fn meaning(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return (event.code == KeyCode::Char('c')).then_some(Key::Quit);
    }
    Some(match event.code {
        KeyCode::Char('q') => Key::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Key::Help,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::Home,
        KeyCode::End | KeyCode::Char('G') => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc | KeyCode::Backspace => Key::Back,
        KeyCode::Tab | KeyCode::Right => Key::NextView,
        KeyCode::BackTab | KeyCode::Left => Key::LastView,
        KeyCode::Char(' ' | 'p') => Key::Pause,
        KeyCode::Char('t') => Key::Total,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('+' | '=') => Key::Faster,
        KeyCode::Char('-' | '_') => Key::Slower,
        KeyCode::Char(digit) => {
            let place = usize::try_from(digit.to_digit(10)?).ok()?.checked_sub(1)?;
            Key::View(*View::ALL.get(place)?)
        }
        _ => return None,
    })
}
