//! What stands between an instance and Redis, and can become a hole.
//!
//! Each `--to` is relayed to the `--upstream`. A line on stdin says a relay's number and what it does from then on:
//! `0 swallow` takes connections and bytes and gives nothing, `0 cut` ends all connections and takes none that lasts, `0
//! pass` relays again. A connection that has lost a byte never works again, as none would behind a real hole.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::options::{Failure, Options};

const PASS: u8 = 0;
const SWALLOW: u8 = 1;
const CUT: u8 = 2;
/// How soon a connection on which nothing comes notices that it is cut.
const LOOK: Duration = Duration::from_millis(20);

/// Relays until stdin ends.
pub(crate) fn relay(options: &Options) -> Result<(), Failure> {
    let upstream = options.text("upstream")?.to_owned();
    let mut modes = Vec::new();
    for to in options.all("to") {
        let (listener, mode) = (TcpListener::bind(to)?, Arc::new(AtomicU8::new(PASS)));
        modes.push(Arc::clone(&mode));
        let upstream = upstream.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (upstream, mode) = (upstream.clone(), Arc::clone(&mode));
                // Ends when one of the sides does.
                thread::spawn(move || connection(stream, &upstream, &mode));
            }
        });
    }
    for line in io::stdin().lines() {
        let line = line?;
        let (number, what) = line.split_once(' ').ok_or("a relay's number, and what it does")?;
        let mode = match what {
            "pass" => PASS,
            "swallow" => SWALLOW,
            "cut" => CUT,
            _ => return Err(format!("{what} is not what a relay does").into()),
        };
        modes.get(number.parse::<usize>()?).ok_or("no such relay")?.store(mode, SeqCst);
    }
    Ok(())
}

fn connection(near: TcpStream, upstream: &str, mode: &Arc<AtomicU8>) -> io::Result<()> {
    let lost = Arc::new(AtomicBool::new(false));
    if mode.load(SeqCst) == SWALLOW {
        lost.store(true, SeqCst);
        return copy(near.try_clone()?, near, mode, &lost);
    }
    let far = TcpStream::connect(upstream)?;
    let (near_too, far_too, mode_too, lost_too) =
        (near.try_clone()?, far.try_clone()?, Arc::clone(mode), Arc::clone(&lost));
    thread::spawn(move || copy(far_too, near_too, &mode_too, &lost_too));
    copy(near, far, mode, &lost)
}

fn copy(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8, lost: &AtomicBool) -> io::Result<()> {
    from.set_nodelay(true)?;
    from.set_read_timeout(Some(LOOK))?;
    let mut piece = [0; 64 << 10];
    loop {
        let read = from.read(&mut piece);
        let mode = mode.load(SeqCst);
        let taken = match read {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => 0,
            Ok(taken @ 1..) => taken,
            _ => break,
        };
        if mode == CUT {
            break;
        }
        if mode == SWALLOW && taken > 0 {
            lost.store(true, SeqCst);
        }
        if taken > 0 && !lost.load(SeqCst) && to.write_all(&piece[..taken]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    Ok(())
}
