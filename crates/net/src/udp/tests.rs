#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// What each socket has.
fn received(bound: &UdpBound) -> Vec<Vec<u8>> {
    let mut buffer = [0; 64];
    let last = |socket: &UdpSocket, buffer: &mut [u8]| socket.recv(buffer).map(|_| buffer[0]);
    bound
        .sockets
        .iter()
        .map(|socket| std::iter::from_fn(|| last(socket, &mut buffer).ok()).collect())
        .collect()
}

#[test]
fn a_datagram_reaches_the_worker_of_its_connection_whatever_its_sender() {
    let bound =
        bind(anywhere(), &UdpOptions { sockets: 3, reuse_port: true, socket_options: Default::default() })
            .unwrap();
    for worker in 0..3u32 {
        for round in 0..4 {
            let id = (round * 300 + worker).to_be_bytes();
            // Each from another port.
            let client = UdpSocket::bind(anywhere()).unwrap();
            let mut short = vec![0x40 | worker as u8];
            short.extend(id);
            client.send_to(&short, bound.address).unwrap();
            let mut long = vec![0xc0 | worker as u8, 0, 0, 0, 1, 8];
            long.extend(id);
            client.send_to(&long, bound.address).unwrap();
        }
    }
    for (worker, got) in received(&bound).into_iter().enumerate() {
        assert_eq!(got.len(), 8);
        assert!(got.iter().all(|first| usize::from(first & 0x3f) == worker), "{worker}: {got:?}");
    }
}

#[test]
fn too_short_a_datagram_reaches_the_first() {
    let bound =
        bind(anywhere(), &UdpOptions { sockets: 2, reuse_port: true, socket_options: Default::default() })
            .unwrap();
    let client = UdpSocket::bind(anywhere()).unwrap();
    client.send_to(&[0x41, 1], bound.address).unwrap();
    assert_eq!(received(&bound), [vec![0x41], vec![]]);
}

#[test]
fn an_address_in_use_is_refused_although_it_could_be_shared() {
    let options = UdpOptions { sockets: 2, reuse_port: true, socket_options: Default::default() };
    let bound = bind(anywhere(), &options).unwrap();
    assert!(matches!(bind(bound.address, &options), Err(ListenError::InUse { .. })));
    let address = bound.address;
    drop(bound);
    bind(address, &UdpOptions { sockets: 2, reuse_port: false, socket_options: Default::default() }).unwrap();
}
