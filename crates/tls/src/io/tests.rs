#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;

use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{RootCertStore, SupportedProtocolVersion};
use tidegate_testkit::io::{Link, MemIo, pair, pair_over};

use super::*;
use crate::names;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/certs");
const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn server_config(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(format!("{CERTS}/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{CERTS}/server.key")).unwrap();
    let mut config = ServerConfig::builder_with_protocol_versions(versions)
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn client_config(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{CERTS}/ca.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn settings(close_notify: CloseNotify) -> Arc<Settings> {
    Arc::new(Settings {
        stats: TlsStats::detached(),
        close_notify,
        timed_out: None,
        peer_validated: true,
        authorities: Vec::new(),
        local: None,
    })
}

fn connection() -> Rc<ConnectionInfo> {
    let address = || Address::Unix("test".into());
    Rc::new(ConnectionInfo::new(1, address(), address(), "test".into()))
}

struct Ends {
    client: TlsIo,
    server: TlsIo,
    connection: Rc<ConnectionInfo>,
}

fn over(link: Link, versions: &[&'static SupportedProtocolVersion], close_notify: CloseNotify) -> Ends {
    let (near, far) = pair_over(link);
    let connection = connection();
    Ends {
        client: client(near, client_config(versions, &[])),
        server: server(far, server_config(versions, &[]), &connection, close_notify, None),
        connection,
    }
}

fn client(io: MemIo, config: Arc<ClientConfig>) -> TlsIo {
    let session =
        UnbufferedClientConnection::new(config, ServerName::try_from("server.test").unwrap()).unwrap();
    TlsIo::client(Box::new(io), session, settings(CloseNotify::Always))
}

fn server(
    io: MemIo,
    config: Arc<ServerConfig>,
    connection: &Rc<ConnectionInfo>,
    close_notify: CloseNotify,
    timeout: Option<Duration>,
) -> TlsIo {
    let mut plain = (*config).clone();
    plain.alpn_protocols.clear();
    let fallback = (!config.alpn_protocols.is_empty()).then(|| Arc::new(plain));
    let session = UnbufferedServerConnection::new(config).unwrap();
    TlsIo::server(Box::new(io), session, settings(close_notify), fallback, connection.clone(), timeout)
}

async fn read(io: &mut TlsIo) -> io::Result<Vec<u8>> {
    let mut buf = BytesMut::with_capacity(4096);
    poll_fn(|cx| io.poll_read_ready(cx)).await?;
    poll_fn(|cx| io.poll_read(cx, &mut buf)).await?;
    Ok(buf.to_vec())
}

async fn write(io: &mut TlsIo, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|cx| io.poll_write(cx, &[IoSlice::new(bytes)])).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

async fn shutdown(io: &mut TlsIo) {
    poll_fn(|cx| io.poll_shutdown(cx)).await.unwrap();
}

/// Runs both handshakes, the server's inside its waiting for data.
async fn establish(ends: &mut Ends) {
    let Ends { client, server, .. } = ends;
    poll_fn(|cx| {
        assert!(server.poll_read_ready(cx).is_pending());
        let done = client.poll_handshake(cx);
        // The client's last flight.
        assert!(server.poll_read_ready(cx).is_pending());
        done
    })
    .await
    .unwrap();
    assert!(server.tls().is_some());
}

#[tokio::test]
async fn both_roles_speak_both_versions_however_bytes_are_cut() {
    for version in BOTH {
        for cut in [1, 7, 5000, usize::MAX] {
            let link = Link { max_read: cut, max_write: cut, ..Link::default() };
            let Ends { mut client, mut server, connection } = over(link, &[version], CloseNotify::Always);
            let question = vec![b'q'; 3000];
            let answer = vec![b'a'; 50_000];
            let serve = async {
                let mut got = Vec::new();
                while got.len() < question.len() {
                    got.extend(read(&mut server).await.unwrap());
                }
                assert_eq!(got, question);
                write(&mut server, &answer).await.unwrap();
                shutdown(&mut server).await;
                assert_eq!(read(&mut server).await.unwrap(), b"");
            };
            let ask = async {
                write(&mut client, &question).await.unwrap();
                let mut got = Vec::new();
                loop {
                    let bytes = read(&mut client).await.unwrap();
                    if bytes.is_empty() {
                        break;
                    }
                    got.extend(bytes);
                }
                assert_eq!(got.len(), answer.len());
                shutdown(&mut client).await;
            };
            tokio::join!(serve, ask);
            let info = connection.tls.get().unwrap();
            assert_eq!(info.version, names::version(version.version));
            for io in [&client, &server] {
                let counters = io.settings.stats.counters();
                assert_eq!(counters.handshake().value(), 1);
                assert_eq!(counters.close_notify_sent().value(), 1);
                assert_eq!(counters.close_notify_received().value(), 1);
                assert_eq!(counters.unexpected_eof().value(), 0);
                assert_eq!(io.settings.stats.value("versions", info.version), 1);
                assert_eq!(io.settings.stats.value("ciphers", info.cipher), 1);
                assert_eq!(
                    io.settings.stats.value("curves", "X25519MLKEM768"),
                    u64::from(*version == BOTH[0])
                );
            }
            assert_eq!(client.tls().unwrap().peer.as_ref().unwrap().subject, "CN=server");
        }
    }
}

#[tokio::test]
async fn a_small_exchange_takes_one_call_a_direction_and_no_buffer_is_kept() {
    let (near, far) = pair();
    let calls = far.calls();
    let connection = connection();
    let mut ends = Ends {
        client: client(near, client_config(BOTH, &[])),
        server: server(far, server_config(BOTH, &[]), &connection, CloseNotify::Always, None),
        connection,
    };
    establish(&mut ends).await;
    let Ends { mut client, mut server, .. } = ends;
    assert!(!server.outgoing.is_empty() && !server.outgoing.urgent, "tickets wait");
    for _ in 0..3 {
        let before = *calls.borrow();
        write(&mut client, b"question").await.unwrap();
        assert_eq!(read(&mut server).await.unwrap(), b"question");
        let answer = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        assert_eq!(poll_fn(|cx| server.poll_write(cx, &answer)).await.unwrap(), 8);
        assert_eq!(read(&mut client).await.unwrap(), b"headbody");
        let after = *calls.borrow();
        assert_eq!((after.reads - before.reads, after.writes - before.writes), (1, 1));
        assert!(server.received.is_empty() && server.outgoing.is_empty() && server.stash.capacity() == 0);
    }
}

#[tokio::test]
async fn a_reader_with_little_room_gets_everything() {
    let mut ends = over(Link::default(), BOTH, CloseNotify::Always);
    establish(&mut ends).await;
    let Ends { mut client, mut server, .. } = ends;
    let sent: Vec<u8> = (0..40_000_u32).map(|i| i as u8).collect();
    write(&mut client, &sent).await.unwrap();
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let mut buf = BytesMut::with_capacity(100);
        poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
        let count = poll_fn(|cx| server.poll_read(cx, &mut buf)).await.unwrap();
        assert!(count > 0 && buf.len() == count && buf.capacity() <= 128);
        got.extend_from_slice(&buf);
    }
    assert_eq!(got, sent);
}

#[tokio::test]
async fn what_was_accepted_is_sent_although_nobody_flushes() {
    let mut ends = over(Link { window: 1000, ..Link::default() }, BOTH, CloseNotify::Always);
    let Ends { client, server, .. } = &mut ends;
    let sent = vec![7; 100_000];
    let ((), ()) = tokio::join!(async { write(client, &sent).await.unwrap() }, async {
        let mut got = 0;
        while got < 100_000 {
            got += read(server).await.unwrap().len();
        }
    });
    // Not one byte is held back when the last write has returned.
    assert!(client.outgoing.is_empty());
}

#[tokio::test]
async fn the_farewell_follows_the_policy() {
    for (policy, reason, said) in [
        (CloseNotify::Always, CloseReason::IdleTimeout, 1),
        (CloseNotify::NotOnIdle, CloseReason::IdleTimeout, 0),
        (CloseNotify::NotOnIdle, CloseReason::Drained, 1),
        (CloseNotify::Never, CloseReason::Drained, 0),
    ] {
        for by_drop in [false, true] {
            let mut ends = over(Link::default(), BOTH, policy);
            establish(&mut ends).await;
            let Ends { mut client, mut server, .. } = ends;
            let stats = server.settings.stats.clone();
            server.before_close(reason);
            if !by_drop {
                shutdown(&mut server).await;
            }
            drop(server);
            assert_eq!(read(&mut client).await.unwrap(), b"");
            assert_eq!(stats.counters().close_notify_sent().value(), said);
            let counters = client.settings.stats.counters();
            assert_eq!(counters.close_notify_received().value(), said);
            assert_eq!(counters.unexpected_eof().value(), 1 - said);
        }
    }
}

#[tokio::test]
async fn bytes_that_cross_our_farewell_are_readable_and_a_bare_fin_is_counted() {
    let mut ends = over(Link::default(), BOTH, CloseNotify::Always);
    establish(&mut ends).await;
    let Ends { mut client, mut server, .. } = ends;
    server.before_close(CloseReason::IdleTimeout);
    shutdown(&mut server).await;
    write(&mut client, b"late").await.unwrap();
    assert_eq!(read(&mut server).await.unwrap(), b"late");
    client.closing = Closing::Said;
    drop(client);
    assert_eq!(read(&mut server).await.unwrap(), b"");
    let counters = server.settings.stats.counters();
    assert_eq!(counters.unexpected_eof().value(), 1);
    assert_eq!(counters.unexpected_eof_during_idle_close().value(), 1);
}

#[tokio::test]
async fn a_reset_stays_a_reset() {
    let mut ends = over(Link::default(), BOTH, CloseNotify::Always);
    establish(&mut ends).await;
    let Ends { mut client, mut server, connection } = ends;
    client.abort_on_drop();
    drop(client);
    assert_eq!(read(&mut server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(connection.transport_failure.borrow().as_ref().unwrap().contains("Connection reset by peer"));
}

#[tokio::test]
async fn protocols_are_agreed_on_or_ignored() {
    for (offered, agreed) in
        [(&[b"h2".as_slice(), b"http/1.1"][..], Some(b"http/1.1".to_vec())), (&[b"spdy"], None), (&[], None)]
    {
        for cut in [1, usize::MAX] {
            let (near, far) = pair_over(Link { max_read: cut, ..Link::default() });
            let connection = connection();
            let mut ends = Ends {
                client: client(near, client_config(BOTH, offered)),
                server: server(
                    far,
                    server_config(BOTH, &[b"http/1.1"]),
                    &connection,
                    CloseNotify::Always,
                    None,
                ),
                connection,
            };
            let Ends { client, server, .. } = &mut ends;
            let (sent, got) = tokio::join!(write(client, b"x"), read(server));
            sent.unwrap();
            assert_eq!(got.unwrap(), b"x");
            assert_eq!(server.tls().unwrap().alpn, agreed);
            assert_eq!(server.settings.stats.counters().connection_error().value(), 0);
        }
    }
}

#[tokio::test]
async fn what_is_not_tls_is_answered_as_envoy_does() {
    for (bytes, answer, reason) in [
        (
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            b"".as_slice(),
            "268435612:SSL routines:OPENSSL_internal:HTTP_REQUEST",
        ),
        (
            b"PRI * HTTP/2.0\r\n",
            &[21, 3, 1, 0, 2, 2, 70],
            "268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER",
        ),
        (&[0; 64], &[21, 3, 1, 0, 2, 2, 70], "268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER"),
        (
            &[21, 3, 1, 0, 2, 2, 40],
            b"",
            "268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE",
        ),
    ] {
        let (mut near, far) = pair();
        let connection = connection();
        let mut server = server(far, server_config(BOTH, &[]), &connection, CloseNotify::Always, None);
        near.write_all(bytes).await;
        assert_eq!(read(&mut server).await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(server.failure().unwrap(), format!("TLS_error:|{reason}:TLS_error_end"));
        assert_eq!(connection.transport_failure.borrow().as_deref(), server.failure());
        assert_eq!(server.settings.stats.counters().connection_error().value(), 1);
        drop(server);
        assert_eq!(near.read_to_end().await, answer);
    }
}

#[tokio::test]
async fn a_hello_that_breaks_off_at_any_byte_ends_without_a_count() {
    let (near, mut far) = pair();
    let mut client = client(near, client_config(BOTH, &[]));
    poll_fn(|cx| {
        assert!(client.poll_handshake(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    let hello = far.read_some().await;
    for length in 0..hello.len() {
        let (mut near, far) = pair();
        near.write_all(&hello[..length]).await;
        drop(near);
        let mut server = server(far, server_config(BOTH, &[]), &connection(), CloseNotify::Always, None);
        assert_eq!(read(&mut server).await.unwrap(), b"", "{length} bytes");
        assert_eq!(server.settings.stats.counters().connection_error().value(), 0);
        assert!(server.failure().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_times_out() {
    let (_near, far) = pair();
    let connection = connection();
    let timeout = Some(Duration::from_secs(10));
    let mut server = server(far, server_config(BOTH, &[]), &connection, CloseNotify::Always, timeout);
    let begin = tokio::time::Instant::now();
    assert_eq!(read(&mut server).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
    assert_eq!(
        connection.termination_details.borrow().as_deref(),
        Some("transport socket timeout was reached")
    );
}

#[tokio::test]
async fn a_bad_record_after_the_handshake_is_an_error() {
    let (near, far) = pair();
    let connection = connection();
    let mut ends = Ends {
        client: client(near, client_config(BOTH, &[])),
        server: server(far, server_config(BOTH, &[]), &connection, CloseNotify::Always, None),
        connection,
    };
    establish(&mut ends).await;
    let Ends { mut client, mut server, connection } = ends;
    client.outgoing.push(&[23, 3, 3, 0, 30]);
    client.outgoing.push(&[0; 30]);
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    assert_eq!(read(&mut server).await.unwrap_err().kind(), ErrorKind::InvalidData);
    let reason = connection.transport_failure.borrow().as_deref().unwrap().to_owned();
    assert!(reason.contains("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), "{reason}");
    // The alert reached the client.
    let error = read(&mut client).await.unwrap_err();
    assert!(error.to_string().contains("SSLV3_ALERT_BAD_RECORD_MAC"), "{error}");
}
