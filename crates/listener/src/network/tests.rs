#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidegate_filter::{NetworkFilter, NetworkFlow, RespondFlow, Responder, ResponderFactory, Step, Wants};
use tidegate_net::BoxIo;
use tidegate_testkit::{MemIo, pair};
use tidegate_types::{Address, CloseReason, ConnectionInfo, EndStream, ResponseFlags};
use tokio::time::{Instant, sleep};

use super::*;
use crate::Presence;

/// What a scripted filter does, by the bytes that it sees.
#[derive(Clone, Default)]
struct Script {
    name: char,
    open: Open,
    wants: Option<Wants>,
    log: Rc<RefCell<Vec<String>>>,
}

#[derive(Clone, Copy, Default)]
enum Open {
    #[default]
    Continue,
    Skip,
    Close,
    ContinueAfter(Duration),
    CloseAfter(Duration),
}

impl Script {
    fn note(&self, what: impl std::fmt::Display) {
        self.log.borrow_mut().push(format!("{}:{what}", self.name));
    }

    /// `!`: close. `~`: wait a second. `-`: drop the bytes. `.`: skip. Appends its name.
    fn see(&self, what: &str, data: &mut BytesMut, end: EndStream) -> Step<'static, NetworkFlow> {
        self.note(format_args!("{what} {} {end:?}", String::from_utf8_lossy(data)));
        let last = data.last().copied();
        if !data.is_empty() {
            data.extend_from_slice(self.name.to_string().as_bytes());
        }
        match last {
            Some(b'!') => Step::Now(NetworkFlow::close("refused")),
            Some(b'-') => {
                data.clear();
                Step::Now(NetworkFlow::Continue)
            }
            Some(b'~') => Step::later(async {
                sleep(Duration::from_secs(1)).await;
                NetworkFlow::Continue
            }),
            Some(b'.') => Step::Now(NetworkFlow::Skip),
            _ => Step::Now(NetworkFlow::Continue),
        }
    }
}

impl NetworkFilter for Script {
    fn on_open(&mut self, info: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        self.note("open");
        let close = || {
            NetworkFlow::Close(tidegate_filter::NetworkClose {
                reason: "no".into(),
                flags: ResponseFlags::RATE_LIMITED,
            })
        };
        info.state.set(self.name);
        match self.open {
            Open::Continue => Step::Now(NetworkFlow::Continue),
            Open::Skip => Step::Now(NetworkFlow::Skip),
            Open::Close => Step::Now(close()),
            Open::ContinueAfter(time) => Step::later(async move {
                sleep(time).await;
                NetworkFlow::Continue
            }),
            Open::CloseAfter(time) => Step::later(async move {
                sleep(time).await;
                close()
            }),
        }
    }

    fn on_read(
        &mut self,
        _: &Rc<ConnectionInfo>,
        data: &mut BytesMut,
        end: EndStream,
    ) -> Step<'static, NetworkFlow> {
        self.see("read", data, end)
    }

    fn on_write(
        &mut self,
        _: &Rc<ConnectionInfo>,
        data: &mut BytesMut,
        end: EndStream,
    ) -> Step<'static, NetworkFlow> {
        self.see("write", data, end)
    }

    fn on_close(&mut self, _: &Rc<ConnectionInfo>, reason: Option<CloseReason>) {
        self.note(format_args!("close {reason:?}"));
    }

    fn wants(&self) -> Wants {
        self.wants.unwrap_or(Wants::Both)
    }
}

fn info() -> Rc<ConnectionInfo> {
    let address = |port: u16| Address::Ip(([192, 0, 2, 1], port).into());
    Rc::new(ConnectionInfo::new(1, address(80), address(4000), "l".into()))
}

struct Running {
    client: MemIo,
    info: Rc<ConnectionInfo>,
    log: Rc<RefCell<Vec<String>>>,
    /// What the terminal filter read, call by call.
    seen: Rc<RefCell<Vec<String>>>,
}

impl Running {
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.borrow_mut())
    }
}

/// Opens the scripts on a connection, behind them a terminal that writes back what it reads.
fn start(scripts: Vec<Script>) -> Running {
    start_before(HalfClose::Kept, scripts)
}

fn start_before(half_close: HalfClose, scripts: Vec<Script>) -> Running {
    let (near, client) = pair();
    let (info, log, seen) =
        (info(), Rc::<RefCell<Vec<String>>>::default(), Rc::<RefCell<Vec<String>>>::default());
    let names = ('a'..).zip(scripts);
    let scripts: Vec<_> = names.map(|(name, script)| Script { name, log: log.clone(), ..script }).collect();
    let (connection_info, terminal_saw) = (info.clone(), seen.clone());
    tokio::task::spawn_local(async move {
        // As `open::open` does with factories, which cannot hold an `Rc`.
        let Some(mut io) = opened(scripts, Box::new(near), connection_info, half_close).await else { return };
        let note = |what: String| terminal_saw.borrow_mut().push(what);
        note("begin".into());
        loop {
            let mut buf = BytesMut::with_capacity(8);
            match poll_fn(|cx| io.poll_read(cx, &mut buf)).await {
                Ok(0) => break note("end".into()),
                Ok(_) => note(String::from_utf8_lossy(&buf).into()),
                Err(error) => break note(format!("{:?}", error.kind())),
            }
            while !buf.is_empty() {
                let Ok(written) = poll_fn(|cx| io.poll_write(cx, &[IoSlice::new(&buf)])).await else {
                    return;
                };
                let _ = buf.split_to(written);
            }
        }
        let _ = poll_fn(|cx| io.poll_shutdown(cx)).await;
    });
    Running { client, info, log, seen }
}

async fn opened(
    scripts: Vec<Script>,
    io: BoxIo,
    info: Rc<ConnectionInfo>,
    half_close: HalfClose,
) -> Option<BoxIo> {
    let connection = Connection { io, info, buffer_limit: 64, presence: Presence::nowhere() };
    let filters = scripts.into_iter().map(|script| -> Box<dyn NetworkFilter> { Box::new(script) });
    open::open_all(filters, connection, half_close).await.ok().map(|connection| connection.io)
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_in_order_and_come_back_in_reverse() {
    local(async {
        let mut run = start(vec![Script::default(), Script::default()]);
        run.client.write_all(b"x").await;
        assert_eq!(run.client.read_exact(5).await, "xabba");
        run.client.shutdown().await;
        assert_eq!(run.client.read_to_end().await, "");
        tokio::task::yield_now().await;
        let log = run.log();
        assert_eq!(
            &log[..6],
            ["a:open", "b:open", "a:read x No", "b:read xa No", "b:write xab No", "a:write xabb No"]
        );
        assert_eq!(&log[6..10], ["a:read  Yes", "b:read  Yes", "b:write  Yes", "a:write  Yes"]);
        assert_eq!(&log[10..], ["a:close Some(PeerFin)", "b:close Some(PeerFin)"]);
        assert_eq!(run.info.state.value::<char>().as_deref(), Some(&'b'));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_waits_holds_its_bytes_and_no_others() {
    local(async {
        let mut run = start(vec![Script { wants: Some(Wants::Reads), ..Script::default() }]);
        let start = Instant::now();
        run.client.write_all(b"x~").await;
        tokio::task::yield_now().await;
        run.client.write_all(b"y").await;
        assert_eq!(run.client.read_exact(5).await, "x~aya");
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(*run.seen.borrow(), ["begin", "x~a", "ya"]);
        assert_eq!(run.log()[1..], ["a:read x~ No", "a:read y No"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_a_filter_drops_are_not_the_end() {
    local(async {
        let mut run = start(vec![Script::default()]);
        run.client.write_all(b"gone-").await;
        tokio::task::yield_now().await;
        run.client.write_all(b"x").await;
        assert_eq!(run.client.read_exact(3).await, "xaa");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_skips_sees_nothing_but_the_end() {
    local(async {
        let mut run = start(vec![Script { open: Open::Skip, ..Script::default() }, Script::default()]);
        run.client.write_all(b"x.").await;
        assert_eq!(run.client.read_exact(3).await, "x.b");
        run.client.write_all(b"y").await;
        assert_eq!(run.client.read_exact(1).await, "y");
        run.client.reset();
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let log = std::mem::take(&mut *run.log.borrow_mut());
        assert_eq!(log[..3], ["a:open", "b:open", "b:read x. No"]);
        // Nobody looked at the bytes that ended it.
        assert_eq!(log[3..], ["a:close None", "b:close None"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_never_reaches_the_terminal() {
    local(async {
        let refuses = Script { open: Open::Close, ..Script::default() };
        let mut run = start(vec![Script::default(), refuses, Script::default()]);
        assert_eq!(run.client.read_to_end().await, "");
        assert_eq!(run.log(), ["a:open", "b:open", "a:close Some(Refused)", "b:close Some(Refused)"]);
        assert!(run.seen.borrow().is_empty());
        assert_eq!(run.info.state.flags.get(), ResponseFlags::RATE_LIMITED);
        assert_eq!(run.info.state.local_close_reason.borrow().as_deref(), Some("no"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_filter_thinks_is_kept_up_to_the_limit() {
    local(async {
        let thinks = Script { open: Open::ContinueAfter(Duration::from_secs(3)), ..Script::default() };
        let mut run = start(vec![thinks]);
        run.client.write_all(&[b'z'; 100]).await;
        run.client.shutdown().await;
        let start = Instant::now();
        let back = run.client.read_to_end().await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert_eq!(back.iter().filter(|byte| **byte == b'z').count(), 100);
        assert_eq!(run.seen.borrow().last().map(String::as_str), Some("end"));
        // 64 bytes are the limit.
        assert!(run.log()[1].starts_with(&format!("a:read {} ", "z".repeat(64))));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_refusal_takes_its_time_and_a_client_that_goes_away_ends_it() {
    local(async {
        let refuses = Script { open: Open::CloseAfter(Duration::from_secs(9)), ..Script::default() };
        let mut run = start(vec![refuses.clone()]);
        let start_time = Instant::now();
        assert_eq!(run.client.read_to_end().await, "");
        assert_eq!(start_time.elapsed(), Duration::from_secs(9));

        let Running { client, log, .. } = start(vec![refuses]);
        tokio::task::yield_now().await;
        client.reset();
        tokio::task::yield_now().await;
        assert_eq!(*log.borrow(), ["a:open", "a:close Some(PeerRst)"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn before_a_terminal_without_half_close_the_fin_is_the_end() {
    local(async {
        let mut run = start_before(HalfClose::Ends, vec![Script::default()]);
        run.client.shutdown().await;
        assert_eq!(run.client.read_to_end().await, "");
        assert_eq!(*run.seen.borrow(), ["begin", "end"]);
        assert!(!run.log().iter().any(|line| line.contains("read")));

        let thinks = Script { open: Open::ContinueAfter(Duration::from_secs(3)), ..Script::default() };
        let mut run = start_before(HalfClose::Ends, vec![thinks]);
        let start = Instant::now();
        run.client.shutdown().await;
        assert_eq!(run.client.read_to_end().await, "");
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(run.log(), ["a:open", "a:close Some(PeerFin)"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_closes_amid_the_bytes_closes_at_once() {
    local(async {
        let mut run = start(vec![Script::default()]);
        run.client.write_all(b"x!").await;
        assert_eq!(run.client.read_to_end().await, "");
        tokio::task::yield_now().await;
        assert_eq!(*run.seen.borrow(), ["begin".to_owned(), format!("{:?}", ErrorKind::ConnectionAborted)]);
        assert_eq!(run.log().last().unwrap(), "a:close Some(Refused)");
    })
    .await;
}

/// Greets, then answers in capitals until `q`.
struct Shout(Cell<bool>);

struct ShoutFactory;

impl ResponderFactory for ShoutFactory {
    fn open(&self, _: &Rc<ConnectionInfo>) -> Box<dyn Responder> {
        Box::new(Shout(Cell::default()))
    }
}

impl Responder for Shout {
    fn on_open(&mut self, _: &Rc<ConnectionInfo>, out: &mut BytesMut) -> RespondFlow {
        out.extend_from_slice(b"HI ");
        RespondFlow::Continue
    }

    fn on_read(
        &mut self,
        _: &Rc<ConnectionInfo>,
        data: &mut BytesMut,
        end: EndStream,
        out: &mut BytesMut,
    ) -> RespondFlow {
        self.0.set(end == EndStream::Yes);
        out.extend_from_slice(&data.to_ascii_uppercase());
        if end == EndStream::Yes {
            out.extend_from_slice(b" BYE");
        }
        if data.ends_with(b"q") { RespondFlow::Close } else { RespondFlow::Continue }
    }
}

fn shout() -> (MemIo, Serving) {
    let (near, client) = pair();
    let connection =
        Connection { io: Box::new(near), info: info(), buffer_limit: 1024, presence: Presence::nowhere() };
    (client, RespondTerminal::new(Arc::new(ShoutFactory), tidegate_types::Drain::new()).serve(connection))
}

async fn finish(serving: Serving, client: impl Future<Output = Bytes>) -> Bytes {
    tokio::join!(serving, client).1
}

#[tokio::test(start_paused = true)]
async fn a_responder_answers_until_the_client_ends() {
    let (mut client, serving) = shout();
    let text = finish(serving, async {
        client.write_all(b"abc").await;
        assert_eq!(client.read_exact(6).await, "HI ABC");
        client.shutdown().await;
        client.read_to_end().await
    });
    assert_eq!(text.await, " BYE");
}

#[tokio::test(start_paused = true)]
async fn a_responder_that_closes_is_over_at_once_and_its_client_meets_no_reset() {
    local(async {
        let (mut client, serving) = shout();
        let start = Instant::now();
        client.write_all(b"xq").await;
        serving.await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(client.read_to_end().await, "HI XQ");
        client.write_all(b"late bytes are read and dropped").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_responder_whose_client_resets_just_ends() {
    let (client, serving) = shout();
    client.reset();
    serving.await;
}
