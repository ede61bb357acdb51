//! How streams and connections end.

use tidegate_types::CloseReason;

use super::*;

/// Ends all of `leases` as a router would; what each one saw.
async fn fail_all(leases: Vec<Lease>) -> Vec<StreamError> {
    let mut errors = Vec::new();
    for mut lease in leases {
        let error = head(&mut lease).await.unwrap_err();
        lease.failed(Failed::of(&error, false));
        errors.push(error);
    }
    errors
}

#[tokio::test(start_paused = true)]
async fn goaway_drains_the_connection_and_refuses_what_is_above() {
    // The last stream that the peer has processed, of three: none, some, all.
    for (last, processed) in [(0, 0), (3, 2), (5, 3), (1001, 3)] {
        local(async {
            let lab = Lab::new();
            let mut leases = lab.ask_together(3).await;
            lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), Frame::goaway(last, code::NO_ERROR)]));
            settle().await;
            let refused = leases.split_off(processed);
            for mut lease in refused {
                let result = head(&mut lease).await;
                assert!(is_refused(&result), "{last}: {result:?}");
                lease.failed(Failed::of(&result.unwrap_err(), false));
            }
            // Others go elsewhere.
            let next = lab.ask().await;
            assert_eq!(next.facts().id, 2);
            assert_eq!(lab.pool.connections(), if processed == 0 { 1 } else { 2 });
            for (index, mut lease) in leases.into_iter().enumerate() {
                lab.peer(0, |peer| peer.send(&[ok(2 * index as u32 + 1, true)]));
                head(&mut lease).await.unwrap();
                lease.finish();
            }
            assert_eq!(lab.pool.connections(), 1);
            let stats = lab.stats();
            assert_eq!(stats.upstream_cx_close_notify().value(), 1);
            assert_eq!(
                (stats.upstream_cx_destroy_local().value(), stats.upstream_cx_destroy().value()),
                (1, 1)
            );
            assert_eq!(stats.upstream_cx_destroy_with_active_rq().value(), 0);
            assert_eq!(stats.upstream_cx_protocol_error().value(), 0);
            let resets = (stats.upstream_rq_rx_reset().value(), stats.upstream_rq_tx_reset().value());
            assert_eq!(resets, (0, 0));
            settle().await;
            assert_eq!(lab.shared.limits.connections.used(), 1);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn goaway_and_fin_at_once_are_counted_by_what_they_cost() {
    // The last stream that the peer claims to have processed, of three.
    for (last, broken) in [(0, 0), (3, 2)] {
        local(async {
            let lab = Lab::new();
            let leases = lab.ask_together(3).await;
            lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), Frame::goaway(last, code::NO_ERROR)]));
            lab.host.peers.borrow_mut()[0].io = None;
            settle().await;
            let errors = fail_all(leases).await;
            let refused =
                |error: &&StreamError| matches!(error, StreamError::Reset { code: ResetCode::Refused, .. });
            assert_eq!(errors.iter().filter(refused).count(), 3 - broken, "{errors:?}");
            assert!(lab.pool.is_empty());
            let stats = lab.stats();
            let remote = u64::from(broken > 0);
            assert_eq!(stats.upstream_cx_destroy_remote_with_active_rq().value(), remote);
            assert_eq!(stats.upstream_cx_destroy_local().value(), 1 - remote);
            assert_eq!(stats.upstream_cx_destroy().value(), 1);
            assert_eq!((stats.upstream_rq_active().value(), lab.shared.limits.requests.used()), (0, 0));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn goaway_on_an_idle_connection_closes_it() {
    local(async {
        let lab = Lab::new();
        let mut lease = lab.ask().await;
        settle().await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
        head(&mut lease).await.unwrap();
        lease.finish();
        lab.peer(0, |peer| peer.send(&[Frame::goaway(1, code::NO_ERROR)]));
        settle().await;
        assert!(lab.pool.is_empty());
        assert_eq!(lab.stats().upstream_cx_close_notify().value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_noticed_before_the_connection_is_lent() {
    for goaway in [true, false] {
        local(async move {
            let lab = Lab::new();
            let mut lease = lab.ask().await;
            settle().await;
            lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
            head(&mut lease).await.unwrap();
            lease.finish();
            settle().await;
            if goaway {
                lab.peer(0, |peer| peer.send(&[Frame::goaway(1, code::NO_ERROR)]));
            } else {
                lab.host.peers.borrow_mut()[0].io = None;
            }
            // The pool's task has not run since.
            let acquire = lab.pool.acquire();
            assert_eq!(acquire.await.unwrap().facts().id, 2);
            assert_eq!(lab.stats().upstream_cx_destroy_remote().value(), u64::from(!goaway));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn resets_are_counted_by_their_code_and_cost_one_stream() {
    let cases = [
        (code::REFUSED_STREAM, (0, 0)),
        (code::CANCEL, (1, 0)),
        (code::INTERNAL_ERROR, (1, 0)),
        (code::NO_ERROR, (1, 0)),
        (code::ENHANCE_YOUR_CALM, (1, 0)),
        (code::PROTOCOL_ERROR, (0, 1)),
    ];
    for (sent, counts) in cases {
        local(async {
            let lab = Lab::new();
            let mut leases = lab.ask_together(2).await;
            lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), Frame::reset(1, sent)]));
            let errors = fail_all(vec![leases.remove(0)]).await;
            let StreamError::Reset { by_peer: true, .. } = errors[0] else { panic!("{errors:?}") };
            let stats = lab.stats();
            let seen = (stats.upstream_rq_rx_reset().value(), stats.upstream_rq_tx_reset().value());
            assert_eq!(seen, counts, "{sent}");
            assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 1));
            let codec = &lab.host.codec_stats.0;
            assert_eq!(codec.rx_reset().value(), 1);
            assert_eq!(codec.stream_refused_errors().value(), 0, "those that we would refuse");
            assert_eq!(stats.upstream_rq_pending_failure_eject().value(), 0);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_ends_exactly_its_streams() {
    for rst in [false, true] {
        local(async move {
            let lab = Lab::of_streams(3);
            let mut leases = lab.ask_together(5).await;
            assert_eq!(lab.pool.connections(), 2);
            let others = leases.split_off(3);
            let far = lab.host.peers.borrow_mut()[0].io.take().unwrap();
            if rst {
                far.reset();
            } else {
                drop(far);
            }
            settle().await;
            assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 2));
            let errors = fail_all(leases).await;
            assert!(errors.iter().all(|error| matches!(error, StreamError::Closed | StreamError::Io(_))));
            let stats = lab.stats();
            assert_eq!(stats.upstream_rq_pending_failure_eject().value(), 3);
            assert_eq!(stats.upstream_cx_destroy_remote_with_active_rq().value(), 1);
            assert_eq!(stats.upstream_rq_active().value(), 2);
            assert_eq!(lab.shared.limits.requests.used(), 2);
            drop(others);
            settle().await;
            assert_eq!(lab.peer(1, Peer::frames).len(), 4, "two heads, two resets");
            assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 0));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_end_of_a_stream_does_not_touch_the_next_connection() {
    local(async {
        let lab = Lab::new();
        let old = lab.ask_together(2).await;
        lab.host.peers.borrow_mut()[0].io = None;
        settle().await;
        // The name of the old one is used again.
        let new = lab.ask().await;
        drop(old);
        settle().await;
        assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 1));
        assert_eq!(lab.shared.limits.requests.used(), 1);
        drop(new);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_fetched_yet_is_not_lent_another_connection() {
    local(async {
        let lab = Lab::new();
        let mut first = lab.pool.acquire();
        let second = lab.pool.acquire();
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        settle().await;
        let lease = second.await.unwrap();
        lab.host.peers.borrow_mut()[0].io = None;
        settle().await;
        let third = lab.ask().await;
        assert!(first.await.is_err());
        assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 1));
        drop((lease, third));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_given_up_stream_is_cancelled_and_the_connection_kept() {
    local(async {
        let lab = Lab::new();
        let mut leases = lab.ask_together(3).await;
        lab.peer(0, Peer::frames);
        drop(leases.remove(0));
        leases.remove(0).failed(Failed::TimedOut);
        settle().await;
        let resets = lab.peer(0, Peer::frames);
        let codes: Vec<_> = resets.iter().map(|frame| (frame.kind, frame.u32_at(0))).collect();
        assert_eq!(codes, [(kind::RST_STREAM, code::CANCEL); 2]);
        assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 1));
        assert_eq!(lab.stats().upstream_rq_tx_reset().value(), 2);
        assert_eq!(lab.host.codec_stats.0.tx_reset().value(), 2);
        assert_eq!(lab.stats().upstream_cx_destroy().value(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_before_its_requests_end_cancels_the_rest() {
    local(async {
        let lab = Lab::new();
        let mut lease = lab.pool.acquire().await.unwrap();
        lease.stream().send_head(&RequestHead::new(Method::POST, "a.test", "/"), EndStream::No);
        settle().await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, false), Frame::data(1, *b"hi", true)]));
        head(&mut lease).await.unwrap();
        let frame = poll_fn(|cx| lease.stream().poll_body(cx)).await.unwrap();
        assert!(matches!(frame, BodyFrame::Data(data, EndStream::Yes) if data == "hi"));
        lease.finish();
        settle().await;
        let last = lab.peer(0, Peer::frames).pop().unwrap();
        assert_eq!((last.kind, last.u32_at(0)), (kind::RST_STREAM, code::CANCEL));
        assert_eq!((lab.pool.connections(), lab.stats().upstream_rq_tx_reset().value()), (1, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_says_what_is_left_before_it_closes() {
    local(async {
        let lab = Lab::with(
            Settings { max_streams: Some(1), ..settings() },
            ClientOptions::default(),
            &Maxima::default(),
        );
        let lease = lab.ask().await;
        settle().await;
        drop(lease);
        assert!(lab.pool.is_empty());
        settle().await;
        let kinds: Vec<_> = lab.peer(0, Peer::frames).iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [kind::HEADERS, kind::RST_STREAM]);
        assert_eq!(lab.stats().upstream_cx_destroy_with_active_rq().value(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_protocol_loses_the_connection() {
    local(async {
        let lab = Lab::new();
        let leases = lab.ask_together(2).await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), Frame::data(0, *b"x", false)]));
        settle().await;
        assert!(lab.pool.is_empty());
        let errors = fail_all(leases).await;
        assert!(
            errors.iter().all(|error| !matches!(error, StreamError::Reset { by_peer: true, .. })),
            "{errors:?}"
        );
        let stats = lab.stats();
        assert_eq!(stats.upstream_cx_protocol_error().value(), 1);
        // Its streams are reset first.
        let destroyed = (stats.upstream_cx_destroy_local(), stats.upstream_cx_destroy_with_active_rq());
        assert_eq!((destroyed.0.value(), destroyed.1.value()), (1, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_by_its_missing_pong() {
    local(async {
        let keepalive = KeepaliveOptions::new(Some(Duration::from_secs(2)), Duration::from_secs(1));
        let codec = ClientOptions { keepalive: Some(keepalive), ..ClientOptions::default() };
        let lab = Lab::with(settings(), codec, &Maxima::default());
        let lease = lab.ask().await;
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        assert!(lab.pool.is_empty());
        fail_all(vec![lease]).await;
        assert_eq!(lab.host.codec_stats.0.keepalive_timeout().value(), 1);
        assert_eq!(lab.stats().upstream_cx_protocol_error().value(), 0);
        assert_eq!(lab.stats().upstream_cx_destroy_with_active_rq().value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_drains_while_its_streams_finish() {
    local(async {
        let settings = Settings { max_connection_duration: Some(Duration::from_secs(5)), ..settings() };
        let lab = Lab::with(settings, ClientOptions::default(), &Maxima::default());
        let mut lease = lab.ask().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(lab.stats().upstream_cx_max_duration_reached().value(), 1);
        let next = lab.ask().await;
        assert_eq!(next.facts().id, 2);
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
        head(&mut lease).await.unwrap();
        lease.finish();
        assert_eq!(lab.pool.connections(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_now_and_busy_ones_later() {
    local(async {
        let lab = Lab::of_streams(1);
        let mut leases = lab.ask_together(2).await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
        head(&mut leases[0]).await.unwrap();
        leases.remove(0).finish();
        lab.pool.drain(CloseReason::HostUnhealthy);
        assert_eq!(lab.pool.connections(), 1);
        lab.peer(1, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
        head(&mut leases[0]).await.unwrap();
        leases.remove(0).finish();
        assert!(lab.pool.is_empty());
        assert_eq!(lab.stats().upstream_cx_destroy_local().value(), 2);
    })
    .await;
}

/// Nothing of it was written: its caller may ask again whatever it wants to send.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_connection_ended_before_it_came_for_it_is_told_so() {
    local(async {
        let lab = Lab::new();
        let waiting = lab.pool.acquire();
        settle().await;
        assert_eq!(lab.pool.connections(), 1);
        lab.peer(0, |peer| peer.io = None);
        settle().await;
        assert_eq!(waiting.await.err(), Some(PoolError::Lost));
        assert_eq!((lab.pool.connections(), lab.pool.streams()), (0, 0));
        assert_eq!(lab.shared.limits.requests.used(), 0);
    })
    .await;
}
