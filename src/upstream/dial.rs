//! The race for a connection (RFC 8305).
//!
//! hyper-util has one, in its legacy client's `HttpConnector`, with four dependencies more. It is that of the RFC before
//! (6555): two lists, each in turn, so that an address that does not answer holds up all others of its family.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::names::Address;

/// Between the beginnings of two attempts, unless the first fails before (RFC 8305 section 5).
const DELAY: Duration = Duration::from_millis(250);

/// Connects to the address that is first to answer.
pub(super) async fn dial(addresses: Vec<Arc<Address>>) -> io::Result<(TcpStream, Arc<Address>)> {
    let ordered = interleave(addresses, |address| address.socket.is_ipv6());
    let (stream, address) = race(ordered, |address| async move {
        TcpStream::connect(address.socket).await.map(|stream| (stream, address))
    })
    .await?;
    // Requests are written whole; waiting to fill a segment would only delay them.
    let _ = stream.set_nodelay(true);
    Ok((stream, address))
}

/// One of the first's family, one of the other, and so on (RFC 8305 section 4). Otherwise in the order of the resolver,
/// which knows what this machine prefers (RFC 6724).
fn interleave<T>(addresses: Vec<T>, is_ipv6: impl Fn(&T) -> bool) -> Vec<T> {
    let first = addresses.first().is_some_and(&is_ipv6);
    let (own, other): (Vec<T>, Vec<T>) = addresses.into_iter().partition(|address| is_ipv6(address) == first);
    let (mut own, mut other) = (own.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(own.len() + other.len());
    while own.len() + other.len() > 0 {
        ordered.extend(own.next());
        ordered.extend(other.next());
    }
    ordered
}

/// The first that succeeds; the others are dropped. Fails with the last failure when all have.
async fn race<A, T, F>(addresses: Vec<A>, connect: impl Fn(A) -> F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut left = addresses.into_iter();
    let mut under_way = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = left.next() {
            under_way.spawn(connect(address));
        }
        tokio::select! {
            ended = under_way.join_next() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => failure = error,
                Some(Err(error)) => failure = error.into(),
                None => return Err(failure),
            },
            () = sleep(DELAY), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rfc8305_4_families_take_turns() {
        for (given, ordered) in [
            ("6a 6b 4a 4b", "6a 4a 6b 4b"),
            ("4a 6a 6b 6c", "4a 6a 6b 6c"),
            ("4a 4b 4c 6a", "4a 6a 4b 4c"),
            ("4a 4b", "4a 4b"),
            ("", ""),
        ] {
            let given: Vec<&str> = given.split_whitespace().collect();
            assert_eq!(interleave(given, |address| address.starts_with('6')).join(" "), ordered);
        }
    }

    type Case = (&'static [(u64, Option<bool>)], Result<usize, io::ErrorKind>, u64, &'static [u64]);

    /// Dials by a script: after so long, so it ends. `None`: it never does.
    async fn run(
        script: &[(u64, Option<bool>)],
    ) -> (Result<usize, io::ErrorKind>, Duration, Vec<(usize, Duration)>, usize) {
        struct Dropped(Arc<Mutex<usize>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let start = Instant::now();
        let (begun, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let result = race((0..script.len()).collect(), |number| {
            let (after, outcome) = script[number];
            begun.lock().unwrap().push((number, start.elapsed()));
            let dropped = Dropped(Arc::clone(&ended));
            async move {
                let _dropped = dropped;
                sleep(MS * after as u32).await;
                match outcome {
                    Some(true) => Ok(number),
                    Some(false) => Err(io::ErrorKind::ConnectionRefused.into()),
                    None => std::future::pending().await,
                }
            }
        })
        .await;
        let took = start.elapsed();
        // Those that lost are ended by the runtime, a moment later.
        tokio::task::yield_now().await;
        let (begun, ended) = (begun.lock().unwrap().clone(), *ended.lock().unwrap());
        (result.map_err(|e| e.kind()), took, begun, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn rfc8305_5_the_next_begins_after_a_quarter_of_a_second_or_with_a_failure() {
        let at = |times: &[u64]| -> Vec<(usize, Duration)> {
            times.iter().enumerate().map(|(number, ms)| (number, MS * *ms as u32)).collect()
        };
        let refused = Err(io::ErrorKind::ConnectionRefused);
        let cases: [Case; 7] = [
            (&[(10, Some(true)), (10, Some(true))], Ok(0), 10, &[0]),
            (&[(0, None), (10, Some(true))], Ok(1), 260, &[0, 250]),
            (&[(10, Some(false)), (10, Some(true))], Ok(1), 20, &[0, 10]),
            (&[(300, Some(true)), (100, Some(true))], Ok(0), 300, &[0, 250]),
            (&[(0, None), (0, None), (5, Some(true))], Ok(2), 505, &[0, 250, 500]),
            (&[(10, Some(false)), (20, Some(false))], refused, 30, &[0, 10]),
            (&[(400, Some(false)), (20, Some(false)), (1, Some(true))], Ok(2), 271, &[0, 250, 270]),
        ];
        for (script, result, took, begun) in cases {
            let (got, after, order, ended) = run(script).await;
            assert_eq!((got, after, order.clone()), (result, MS * took as u32, at(begun)), "{script:?}");
            assert_eq!(ended, order.len(), "{script:?}: what has lost is let go");
        }
    }
}
