#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::net::UdpSocket;
use std::sync::Arc;

use tidegate_filter::{NetworkFilter, NetworkFilterFactory, NetworkFlow, Step};
use tidegate_net::udp::{self, UdpOptions};
use tidegate_quic::testing::{SERVER_NAME, client_config, server_config};
use tidegate_quic::{EndpointOptions, connect};
use tidegate_stats::Store;
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::{
    Chain, Chains, Connection, ConnectionLimit, ListenerOptions, ListenerStats, NetworkFilters, Terminal,
    behind,
};

/// Notes who came, and serves each connection until it is lost.
#[derive(Default)]
struct Hold {
    seen: RefCell<Vec<Rc<ConnectionInfo>>>,
}

impl Terminal for Hold {
    fn serve(&self, _: Connection) -> Serving {
        panic!("no TCP here")
    }

    fn serve_quic(&self, connection: QuicConnection) -> Serving {
        let QuicConnection { mut conn, info, presence, .. } = connection;
        self.seen.borrow_mut().push(info);
        Box::pin(async move {
            while !matches!(poll_fn(|cx| conn.poll_event(cx)).await, Event::Lost(_)) {}
            drop(presence);
        })
    }
}

struct Running {
    listener: Rc<Listener>,
    address: SocketAddr,
    store: Store,
    hold: Rc<Hold>,
}

fn start(limits: [Option<u64>; 2], filters: NetworkFilters) -> Running {
    let hold = Rc::new(Hold::default());
    let chains = Chains::only(Chain::plain(behind(&filters, hold.clone())));
    let (endpoint, address) = endpoint();
    let store = Store::new(2);
    let listener = listener(endpoint, limits, &store, chains);
    Running { listener, address, store, hold }
}

fn endpoint() -> (Endpoint, SocketAddr) {
    let options = UdpOptions { sockets: 1, reuse_port: true, socket_options: Default::default() };
    let mut bound = udp::bind(([127, 0, 0, 1], 0).into(), &options).unwrap();
    let server = Some(Arc::new(server_config(&["h3"])));
    let options = EndpointOptions { server, ..EndpointOptions::default() };
    (Endpoint::new(bound.sockets.pop().unwrap(), options).unwrap(), bound.address)
}

fn listener(endpoint: Endpoint, limits: [Option<u64>; 2], store: &Store, chains: Rc<Chains>) -> Rc<Listener> {
    let [global, own] = limits.map(ConnectionLimit::new);
    let options = ListenerOptions { limit: Some(global), own_limit: own, ..ListenerOptions::plain() };
    let stats = ListenerStats::new(store, "l", 0);
    Listener::start_quic("l".into(), endpoint, options, stats, chains, Rc::default())
}

/// A client whose handshake is over, or how it failed.
async fn client(address: SocketAddr) -> Result<Conn, String> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    let mut conn = connect(socket, address, client_config(&["h3"]), SERVER_NAME).unwrap();
    loop {
        match poll_fn(|cx| conn.poll_event(cx)).await {
            Event::Connected => return Ok(conn),
            Event::Lost(loss) => return Err(loss.to_string()),
            _ => {}
        }
    }
}

fn on_worker<T>(test: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(test)
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

fn text(store: &Store) -> String {
    tidegate_stats::render::text(store, &Default::default())
}

#[test]
fn a_connection_is_known_by_its_client_hello_and_counted_to_its_end() {
    on_worker(async {
        let Running { listener, address, store, hold } = start([None, None], NetworkFilters::default());
        let client = client(address).await.unwrap();
        assert_eq!(listener.connections(), 1);
        let info = hold.seen.borrow()[0].clone();
        assert_eq!(info.requested_server_name.borrow().as_deref(), Some(SERVER_NAME));
        assert_eq!(info.local_address, Address::Ip(address));
        assert!(info.secure);
        assert!(text(&store).contains("listener.l.worker_0.downstream_cx_active: 1"));
        drop(client);
        until(|| listener.connections() == 0).await;
        assert!(text(&store).contains("listener.l.downstream_cx_total: 1\n"));
    });
}

#[test]
fn over_a_limit_a_connection_is_refused() {
    on_worker(async {
        for (limits, counter) in
            [([Some(1), None], "downstream_global_cx_overflow"), ([None, Some(1)], "downstream_cx_overflow")]
        {
            let Running { listener, address, store, .. } = start(limits, NetworkFilters::default());
            let first = client(address).await.unwrap();
            assert!(client(address).await.is_err());
            assert!(text(&store).contains(&format!("listener.l.{counter}: 1\n")));
            drop(first);
            until(|| listener.connections() == 0).await;
            client(address).await.unwrap();
        }
    });
}

#[test]
fn one_that_no_chain_wants_is_told_so() {
    on_worker(async {
        let (endpoint, address) = endpoint();
        let store = Store::new(2);
        let chains = Chains::new(Arc::default(), Vec::new());
        let _listener = listener(endpoint, [None, None], &store, chains);
        let error = client(address).await.map(drop).unwrap_err();
        assert!(error.contains("by peer"), "{error}");
        let text = text(&store);
        assert!(text.contains("listener.l.downstream_cx_total: 1\n"), "{text}");
        assert!(text.contains("listener.l.no_filter_chain_match: 0\n"), "{text}");
    });
}

/// Refuses every connection.
struct Refuse;

impl NetworkFilter for Refuse {
    fn on_open(&mut self, _info: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        Step::Now(NetworkFlow::close("not today"))
    }
}

impl NetworkFilterFactory for Refuse {
    fn open(&self, _info: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Self)
    }
}

#[test]
fn a_network_filter_may_refuse_it() {
    on_worker(async {
        let filters: NetworkFilters = [Arc::new(Refuse) as Arc<dyn NetworkFilterFactory>].into();
        let Running { address, hold, listener, .. } = start([None, None], filters);
        assert!(client(address).await.is_err());
        assert!(hold.seen.borrow().is_empty());
        until(|| listener.connections() == 0).await;
    });
}

#[test]
fn a_successor_takes_the_socket_and_open_connections_go_on() {
    on_worker(async {
        let Running { listener: old, address, hold: before, .. } =
            start([None, None], NetworkFilters::default());
        let _first = client(address).await.unwrap();
        let hold = Rc::new(Hold::default());
        let chains = Chains::only(Chain::plain(hold.clone()));
        let store = Store::new(2);
        let new = listener(old.give_endpoint().unwrap(), [None, None], &store, chains);
        old.stop().await;
        let _second = client(address).await.unwrap();
        assert_eq!((before.seen.borrow().len(), hold.seen.borrow().len()), (1, 1));
        assert_eq!((old.connections(), new.connections()), (1, 1));
        new.stop().await;
        assert!(client(address).await.is_err());
    });
}
