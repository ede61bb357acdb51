//! The scenarios themselves, in the order of the report.

use super::{Front, Goal, Message, Scenario, Shape, Upstream};

/// What most have; each says below what is different.
const BASE: Scenario = Scenario {
    name: "",
    title: "",
    front: Front::Http,
    upstream: Upstream::Plain,
    shape: Shape::Closed,
    connections: 64,
    streams: 1,
    message: Message::Plain,
    upload: 0,
    download: 100,
    goals: &[],
};

/// 8 connections with 32 requests under way on each.
const H2_BASE: Scenario = Scenario { front: Front::Http2, connections: 8, streams: 32, ..BASE };

/// The same over QUIC.
const H3_BASE: Scenario = Scenario { front: Front::Http3, ..H2_BASE };

/// All scenarios.
pub(in super::super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "h1-small",
        title: "HTTP/1.1, 64 connections, closed loop, 100-byte responses",
        goals: &[Goal::Cpu(1.0, "haproxy"), Goal::Cpu(0.45, "envoy")],
        ..BASE
    },
    Scenario {
        name: "h1-64k",
        title: "HTTP/1.1, 64 connections, closed loop, 64 KiB responses",
        download: 64 * 1024,
        goals: &[Goal::Cpu(1.1, "haproxy")],
        ..BASE
    },
    Scenario {
        name: "h1-post",
        title: "HTTP/1.1, 64 connections, closed loop, 512-byte requests, 100-byte responses",
        upload: 512,
        ..BASE
    },
    Scenario {
        name: "h1-open-loop",
        title: "HTTP/1.1, 64 connections, fixed rate, 100-byte responses, latency from the intended time",
        shape: Shape::Open,
        ..BASE
    },
    Scenario {
        name: "h1-idle-memory",
        title: "HTTP/1.1, memory of an idle keep-alive connection after its first request",
        shape: Shape::Idle,
        goals: &[Goal::Bytes(4096.0)],
        ..BASE
    },
    Scenario {
        name: "h2-h1",
        title: "HTTP/2 to HTTP/1.1, 8 connections of 32 streams, closed loop, 100-byte responses",
        goals: &[Goal::Cpu(1.0, "haproxy"), Goal::Cpu(0.38, "envoy")],
        ..H2_BASE
    },
    Scenario {
        name: "h1-h2",
        title: "HTTP/1.1 to HTTP/2, 64 connections, closed loop, 100-byte responses",
        upstream: Upstream::Http2,
        goals: &[Goal::Cpu(1.0, "haproxy"), Goal::Cpu(0.42, "envoy")],
        ..BASE
    },
    Scenario {
        name: "h2-h2",
        title: "HTTP/2 to HTTP/2, 8 connections of 32 streams, closed loop, 100-byte responses",
        upstream: Upstream::Http2,
        goals: &[Goal::Cpu(1.3, "haproxy"), Goal::Cpu(0.32, "envoy")],
        ..H2_BASE
    },
    Scenario {
        name: "h2-64k",
        title: "HTTP/2 to HTTP/1.1, 8 connections of 8 streams, closed loop, 64 KiB responses",
        streams: 8,
        download: 64 * 1024,
        ..H2_BASE
    },
    Scenario {
        name: "h2-post",
        title: "HTTP/2 to HTTP/1.1, 8 connections of 32 streams, closed loop, 512-byte requests",
        upload: 512,
        ..H2_BASE
    },
    Scenario {
        name: "h2-open-loop",
        title: "HTTP/2 to HTTP/1.1, 8 connections, fixed rate, 100-byte responses, latency from the intended time",
        shape: Shape::Open,
        ..H2_BASE
    },
    Scenario {
        name: "h2-tls",
        title: "HTTP/2 over TLS 1.3 to HTTP/1.1, 8 connections of 32 streams, closed loop, 100-byte responses",
        front: Front::Http2Tls,
        ..H2_BASE
    },
    Scenario {
        name: "grpc-unary",
        title: "unary gRPC calls, 8 connections of 32 streams, closed loop, messages of 100 bytes",
        upstream: Upstream::Http2,
        message: Message::Grpc,
        upload: 100,
        ..H2_BASE
    },
    Scenario {
        name: "h2-idle-memory",
        title: "HTTP/2, memory of an idle connection after its first request",
        shape: Shape::Idle,
        connections: 64,
        streams: 1,
        goals: &[Goal::Bytes(12_288.0)],
        ..H2_BASE
    },
    Scenario {
        name: "tcp-small",
        title: "TCP proxy, 64 connections, closed loop, 100-byte responses",
        front: Front::Tcp,
        goals: &[Goal::Cpu(0.95, "haproxy"), Goal::Cpu(0.75, "envoy")],
        ..BASE
    },
    Scenario {
        name: "tcp-bulk",
        title: "TCP proxy, 8 connections, closed loop, responses of 16 MiB (us/req / 16.8 = ms a GB)",
        front: Front::Tcp,
        connections: 8,
        download: 16 << 20,
        goals: &[Goal::Cpu(1.0, "haproxy")],
        ..BASE
    },
    Scenario {
        name: "tls-small",
        title: "TLS 1.3 kept alive to HTTP/1.1, 64 connections, closed loop, 100-byte responses",
        front: Front::Tls,
        goals: &[Goal::Cpu(1.0, "nginx")],
        ..BASE
    },
    Scenario {
        name: "tls-new",
        title: "TLS 1.3, a new connection and a full handshake for each request, 16 at a time",
        front: Front::Tls,
        shape: Shape::Reconnect,
        connections: 16,
        goals: &[Goal::Cpu(0.9, "envoy")],
        ..BASE
    },
    Scenario {
        name: "tls-idle-memory",
        title: "TLS 1.3, memory of an idle keep-alive connection after its first request",
        front: Front::Tls,
        shape: Shape::Idle,
        goals: &[Goal::Bytes(16_384.0)],
        ..BASE
    },
    Scenario {
        name: "idle-timeout",
        title: "many idle HTTP/1.1 connections until their idle timeout: CPU meanwhile, and when they are closed",
        shape: Shape::IdleTimeout,
        goals: &[Goal::CorePercent(0.2)],
        ..BASE
    },
    Scenario {
        name: "stale-reuse",
        title: "requests 200 ms (give or take 20) apart, 5 ms from an origin that closes after 200 ms idle: failures",
        shape: Shape::Stale,
        goals: &[Goal::FailedPercent(0.0)],
        ..BASE
    },
    Scenario {
        name: "h3-h1",
        title: "HTTP/3 to HTTP/1.1, 8 connections of 32 streams, closed loop, 100-byte responses",
        goals: &[Goal::Cpu(0.6, "envoy")],
        ..H3_BASE
    },
    Scenario {
        name: "h3-1m",
        title: "HTTP/3 to HTTP/1.1, 8 connections of 4 streams, closed loop, 1 MB responses",
        streams: 4,
        download: 1_000_000,
        goals: &[Goal::Cpu(1.0, "envoy")],
        ..H3_BASE
    },
    Scenario {
        name: "h3-new",
        title: "HTTP/3, a new connection for each request, 8 at a time, full handshakes",
        streams: 1,
        shape: Shape::Reconnect,
        goals: &[Goal::Cpu(0.9, "envoy")],
        ..H3_BASE
    },
    Scenario {
        name: "h3-idle-memory",
        title: "HTTP/3, memory of an idle connection after its first request",
        streams: 1,
        shape: Shape::Idle,
        goals: &[Goal::Bytes(24.0 * 1024.0)],
        ..H3_BASE
    },
];
