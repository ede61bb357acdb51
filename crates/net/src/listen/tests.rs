#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::net::TcpStream;
use std::time::Duration;

use super::*;
use crate::socket_option::SocketOption;

fn options(sockets: usize) -> ListenOptions {
    ListenOptions {
        sockets,
        reuse_port: true,
        backlog: None,
        unix_mode: None,
        keepalive: None,
        take_over: false,
        socket_options: Default::default(),
    }
}

fn loopback() -> Address {
    Address::Ip("127.0.0.1:0".parse().unwrap())
}

#[tokio::test]
async fn port_0_is_chosen_once_and_any_socket_may_accept() {
    let bound = bind(&loopback(), &options(3)).unwrap();
    assert_ne!(bound.address.port(), Some(0));
    let acceptors: Vec<_> = bound.sockets.into_iter().map(|s| Acceptor::new(s).unwrap()).collect();
    let Address::Ip(address) = bound.address else { panic!("no IP") };
    let client = TcpStream::connect(address).unwrap();
    let accepted = poll_fn(|cx| {
        for acceptor in &acceptors {
            if let Poll::Ready(accepted) = acceptor.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
    .unwrap();
    assert_eq!(accepted.peer_address, client.local_addr().unwrap().into());
    assert_eq!(accepted.local_address, address.into());
}

#[test]
fn a_port_in_use_is_an_error_even_where_it_could_be_shared() {
    let bound = bind(&loopback(), &options(1)).unwrap();
    let error = bind(&bound.address, &options(2)).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&bound.address.to_string()));
    bind(&bound.address, &ListenOptions { take_over: true, ..options(2) }).unwrap();
}

#[test]
fn accepted_sockets_inherit_nodelay_and_keepalive() {
    let keepalive = Some(Keepalive { time: Some(Duration::from_secs(33)), ..Keepalive::default() });
    let bound = bind(&loopback(), &ListenOptions { keepalive, ..options(1) }).unwrap();
    let Address::Ip(address) = bound.address else { panic!("no IP") };
    let _client = TcpStream::connect(address).unwrap();
    let listener = &bound.sockets[0].socket;
    listener.set_nonblocking(false).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.tcp_nodelay().unwrap());
    assert!(accepted.keepalive().unwrap());
    assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(33));
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let address = Address::Unix(path.clone());
    let with_mode = ListenOptions { unix_mode: Some(0o600), ..options(2) };
    let bound = bind(&address, &with_mode).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(bind(&address, &with_mode).unwrap_err(), ListenError::InUse { .. }));
    drop(bound);
    bind(&address, &with_mode).unwrap();

    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    bind(&Address::Unix(file.clone()), &with_mode).unwrap_err();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

#[tokio::test]
async fn sockets_are_told_what_is_asked_when_it_is_asked() {
    let priority = |value| SocketOption::int(libc::SOL_SOCKET, libc::SO_PRIORITY, value);
    let socket_options = ListenerSocketOptions {
        prebind: vec![SocketOption::freebind(true)],
        bound: vec![priority(1)],
        listening: vec![priority(3), SocketOption::fast_open(5)],
    };
    // No address of this machine: only `freebind` lets it be bound.
    let foreign = Address::Ip("192.0.2.1:0".parse().unwrap());
    bind(&foreign, &options(1)).unwrap_err();
    let asked = ListenOptions { socket_options, ..options(2) };
    for socket in bind(&foreign, &asked).unwrap().sockets {
        assert_eq!(
            socket2::SockRef::from(&socket.socket)
                .local_addr()
                .unwrap()
                .as_socket()
                .unwrap()
                .ip()
                .to_string(),
            "192.0.2.1"
        );
    }
    let unknown = vec![SocketOption::int(9999, 9999, 1)];
    for socket_options in [
        ListenerSocketOptions { prebind: unknown.clone(), ..Default::default() },
        ListenerSocketOptions { bound: unknown.clone(), ..Default::default() },
        ListenerSocketOptions { listening: unknown, ..Default::default() },
    ] {
        let error = bind(&loopback(), &ListenOptions { socket_options, ..options(1) }).unwrap_err();
        assert!(error.to_string().contains("setting socket option 9999/9999: "), "{error}");
    }
}
