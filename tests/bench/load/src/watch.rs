//! Whether others take the core that this runs on.

use std::io::{Write as _, stdout};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::{Failure, Options};
use crate::stats::now;

const EVERY: Duration = Duration::from_micros(500);
/// What a timer is late by itself.
const USUAL: Duration = Duration::from_micros(300);

/// Sleeps for half a millisecond again and again for `--seconds`, and says of each time that it woke up late when that was
/// due and when it was, in nanoseconds since 1970: whoever else had to wake up on this core then was late, too.
pub(crate) fn watch(options: &Options) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs_f64(options.number("seconds", 10.0)?);
    let mut out = stdout().lock();
    while Instant::now() < end {
        let asleep = Instant::now();
        thread::sleep(EVERY);
        let late = asleep.elapsed().saturating_sub(EVERY);
        if late > USUAL {
            let woken = now();
            writeln!(out, "{},{woken}", woken - late.as_nanos() as u64)?;
        }
    }
    Ok(())
}
