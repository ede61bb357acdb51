#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, IoSlice};

use tidegate_net::Io;
use tidegate_testkit::io::{MemIo, pair};
use tokio::task::{LocalSet, yield_now};
use tokio::time::Instant;

use super::*;

async fn write(io: &mut MemIo) -> io::Result<usize> {
    poll_fn(|cx| io.poll_write(cx, &[IoSlice::new(b"x")])).await
}

#[tokio::test(start_paused = true)]
async fn the_peer_is_heard_to_its_end_and_not_longer() {
    LocalSet::new()
        .run_until(async {
            prepare();
            prepare();
            // One that answers our FIN with bytes, then its own.
            let (near, mut far) = pair();
            part(Box::new(near) as BoxIo);
            assert!(far.try_read().await.unwrap().is_empty());
            write(&mut far).await.unwrap();
            drop(far);
            // One that stays: given up after a while.
            let (near, mut far) = pair();
            let begun = Instant::now();
            part(Box::new(near) as BoxIo);
            assert!(far.try_read().await.unwrap().is_empty());
            assert_eq!(begun.elapsed(), Duration::ZERO);
            while write(&mut far).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(begun.elapsed() >= LISTEN_TIME && begun.elapsed() < 2 * LISTEN_TIME);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_task_a_connection_closes_at_once() {
    let (near, mut far) = pair();
    part(Box::new(near) as BoxIo);
    assert!(far.try_read().await.unwrap().is_empty());
    assert!(write(&mut far).await.is_err());
    // And a task of a former runtime does not count.
    LocalSet::new()
        .run_until(async {
            prepare();
            yield_now().await;
        })
        .await;
    let (near, mut far) = pair();
    part(Box::new(near) as BoxIo);
    assert!(far.try_read().await.unwrap().is_empty());
    assert!(write(&mut far).await.is_err());
}
