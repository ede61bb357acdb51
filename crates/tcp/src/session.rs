//! A session from accept to its end: one task, no channel.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::BytesMut;
use tidegate_cluster::{Cut, Directory, tcp};
use tidegate_filter::LogContext;
use tidegate_listener::Presence;
use tidegate_net::BoxIo;
use tidegate_types::{
    CloseType, ConnectionInfo, DrainPhase, DrainWatch, ResponseFlags, StreamInfo, UpstreamInfo,
};
use tokio::time::Instant;

use crate::TcpProxy;
use crate::clock::{Clock, Due};
use crate::connect::{self, Early};
use crate::end::{End, Side};
use crate::part::{Leaving, part};
use crate::relay::{Counts, Relay};

/// What a session knows of itself.
pub(crate) struct Session {
    pub(crate) proxy: Arc<TcpProxy>,
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) facts: Facts,
    presence: Option<Presence>,
    buffer_limit: usize,
    drain: DrainWatch,
    clock: Clock,
    /// It ends when its host begins to fail.
    pub(crate) cut: Option<Cut>,
    /// Counted in the gauge `downstream_cx_idle`.
    idle: bool,
    over: bool,
}

/// What its access log says.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) cluster: Option<Arc<str>>,
    /// Which one of weighted clusters that is.
    pub(crate) place: usize,
    pub(crate) upstream: Option<UpstreamInfo>,
    pub(crate) transport_failure: Option<String>,
    pub(crate) flags: ResponseFlags,
    pub(crate) attempts: u32,
    /// There is, or was, an upstream connection.
    connected: bool,
    received: u64,
    sent: u64,
}

/// Serves a connection to its end. Each step is a line.
pub(crate) async fn run(mut session: Session, mut downstream: BoxIo, directory: Rc<Directory>) {
    if session.proxy.config.access_log_options.on_start {
        session.log("TcpConnectionStart");
    }
    let connected = join(&mut session, &mut downstream, &directory).await;
    // The session keeps its cluster by what it is connected to, not by the whole directory.
    drop(directory);
    let (end, upstream) = match connected {
        Ok((connection, early)) => relay(&mut session, &mut downstream, connection, early).await,
        Err(end) => (end, None),
    };
    let downstream = Leaving::new(downstream, end.parting(Side::Downstream), end.reason(Side::Downstream));
    session.end(end);
    if downstream.is_some() || upstream.is_some() {
        // For everybody else the connection is over.
        tokio::task::spawn_local(async move { part([downstream, upstream], &session.drain).await });
    }
}

/// Finds the session its upstream.
async fn join(
    session: &mut Session,
    downstream: &mut BoxIo,
    directory: &Directory,
) -> Result<(tcp::Connection, BytesMut), End> {
    let mut early = Early::new(session);
    // They only matter first where the configuration says so.
    connect::first_bytes(session, downstream, &mut early).await?;
    let connected = connect::connect(session, downstream, &mut early, directory).await;
    // Counted as they came.
    session.facts.received = early.bytes.len() as u64;
    Ok((connected?, early.bytes))
}

/// Relays until the session is over. The upstream connection leaves the cluster's counts then.
async fn relay(
    session: &mut Session,
    downstream: &mut BoxIo,
    connection: tcp::Connection,
    early: BytesMut,
) -> (End, Option<Leaving>) {
    let tcp::Connection { io: mut upstream, lease } = connection;
    session.facts.connected = true;
    if session.proxy.config.access_log_options.on_connected {
        session.log("TcpUpstreamConnected");
    }
    let mut counted = Counts::early(early.len());
    let mut relay = Relay::new(early, session.buffer_limit);
    let end = poll_fn(|cx| {
        let end = relay.poll(cx, downstream.as_mut(), upstream.as_mut());
        let now = Instant::now();
        let counts = relay.counts();
        if counts != counted {
            counts.add(&counted, &session.proxy.stats, lease.stats());
            counted = counts;
            (session.facts.received, session.facts.sent) = (counts.bytes.received, counts.bytes.sent);
            session.touch(now);
        }
        if let Some(end) = end {
            return Poll::Ready(end);
        }
        session.set_idle(!relay.holds_bytes());
        session.poll_end(cx, now)
    })
    .await;
    let reason = end.reason(Side::Upstream);
    let leaving = Leaving::new(upstream, end.parting(Side::Upstream), reason);
    lease.end(reason, session.clock.idle_for(Instant::now()));
    (end, leaving)
}

impl Session {
    /// A session that begins now.
    pub(crate) fn begin(
        proxy: Arc<TcpProxy>,
        info: Rc<ConnectionInfo>,
        presence: Presence,
        buffer_limit: usize,
        drain: DrainWatch,
    ) -> Self {
        proxy.stats.downstream_cx_total().inc();
        info.state.upstream_close_type.set(Some(CloseType::Normal));
        let config = &proxy.config;
        let max_duration = proxy.max_duration(fastrand::f64);
        let flush = config.access_log_options.flush_interval.filter(|_| !proxy.logs.is_empty());
        let clock = Clock::new(Instant::now(), config.idle_timeout, max_duration, flush);
        let facts = Facts::default();
        Self {
            proxy,
            info,
            facts,
            presence: Some(presence),
            buffer_limit,
            drain,
            clock,
            cut: None,
            idle: false,
            over: false,
        }
    }

    /// A byte passed.
    #[inline]
    pub(crate) fn touch(&mut self, now: Instant) {
        if self.idle {
            let pause = self.clock.idle_for(now).as_millis() as u64;
            // Half of the work of a busy session's message would be its histogram.
            if pause > 0 {
                self.proxy.stats.downstream_cx_idle_age_at_reuse_ms().record(pause);
            }
        }
        self.clock.touch(now);
    }

    fn set_idle(&mut self, idle: bool) {
        if self.idle != idle {
            self.idle = idle;
            let gauge = self.proxy.stats.downstream_cx_idle();
            if idle { gauge.inc() } else { gauge.dec() }
        }
    }

    /// Ready when the session ends by itself.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<End> {
        if self.drain.poll_reached(cx, DrainPhase::CloseAll).is_ready() {
            return Poll::Ready(End::Drained);
        }
        if self.cut.as_ref().is_some_and(|cut| cut.poll(cx).is_ready()) {
            return Poll::Ready(End::HostFailed);
        }
        loop {
            match std::task::ready!(self.clock.poll(cx, now)) {
                Due::Flush => self.log("TcpPeriodic"),
                Due::Idle => return Poll::Ready(End::Idle),
                Due::MaxDuration => return Poll::Ready(End::MaxDuration),
            }
        }
    }

    /// Counts the end and tells the logs.
    pub(crate) fn end(&mut self, end: End) {
        self.facts.flags.insert(end.flags());
        let state = &self.info.state;
        // What network filters kept from the session counts as received, as in Envoy.
        self.proxy.stats.downstream_cx_rx_bytes_total().add(state.bytes_received.get());
        if let Some(details) = end.termination_details() {
            *self.info.termination_details.borrow_mut() = Some(details.into());
        }
        if let Some(reason) = end.local_close_reason() {
            *state.local_close_reason.borrow_mut() = Some(reason.into());
        }
        if self.facts.connected {
            // Whatever closes one side closes the other.
            let reason = state.local_close_reason.borrow().clone();
            state.upstream_local_close_reason.replace(reason);
        }
        state.close_type.set(end.close_type(Side::Downstream));
        state.upstream_close_type.set(Some(end.close_type(Side::Upstream)));
        self.count(end);
        let presence = self.presence.take();
        // The listener's line comes first, as in Envoy.
        if let Some(mut presence) = presence {
            presence.log(|stream| self.tell(stream));
        }
        self.log("TcpConnectionEnd");
        self.say(end);
    }

    fn count(&mut self, end: End) {
        self.over = true;
        let was_idle = self.idle;
        self.set_idle(false);
        let stats = &self.proxy.stats;
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_close_reason().of(end.reason(Side::Downstream)).inc();
        if was_idle {
            let idle = self.clock.idle_for(Instant::now());
            stats.downstream_cx_idle_age_at_close_ms().record(idle.as_millis() as u64);
        }
        match end {
            End::Idle => stats.idle_timeout().inc(),
            End::MaxDuration => stats.max_downstream_connection_duration().inc(),
            End::Drained => stats.downstream_cx_drain_close().inc(),
            _ => {}
        }
    }

    /// The one line about the close; its fields cost nothing while the level is off.
    fn say(&self, end: End) {
        tracing::debug!(
            target: "filter",
            connection = self.info.id,
            kind = "tcp session",
            peer = %self.info.remote_address,
            cluster = self.facts.cluster.as_deref(),
            reason = end.reason(Side::Downstream).name(),
            idle_ms = self.clock.idle_for(Instant::now()).as_millis() as u64,
            "{}",
            end.words(),
        );
    }

    /// What access logs are told of the session, the listener's and its own.
    fn tell(&self, stream: &StreamInfo) {
        let facts = &self.facts;
        stream.flags.set(facts.flags.with(self.info.state.flags.get()));
        stream.cluster.replace(facts.cluster.clone());
        stream.upstream.replace(facts.upstream.clone());
        stream.upstream_transport_failure.replace(facts.transport_failure.clone());
        stream.attempts.set(facts.attempts);
        stream.bytes_received.set(facts.received + self.info.state.bytes_received.get());
        stream.bytes_sent.set(facts.sent);
    }

    /// Writes the access logs as things stand; `event` is `%ACCESS_LOG_TYPE%`.
    fn log(&self, event: &'static str) {
        if self.proxy.logs.is_empty() {
            return;
        }
        let age = self.clock.age();
        let info = StreamInfo::new(self.info.clone(), SystemTime::now() - age);
        self.tell(&info);
        info.log_type.set(event);
        info.ended.set(Some(age));
        let cx = LogContext {
            request: None,
            response: None,
            response_trailers: None,
            local_reply_body: "",
            info: &info,
        };
        self.proxy.logs.iter().for_each(|log| log.log(&cx));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The worker ends with the session's task in it.
        if !self.over {
            self.count(End::Drained);
        }
    }
}
