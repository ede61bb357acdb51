//! A network filter: connections that do not begin with the configured bytes are closed; whoever stands behind the
//! filter never sees those bytes.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use tidegate_filter::{FactoryContext, NetworkFilter, NetworkFilterType, NetworkFlow, Step, Wants};
use tidegate_stats::{Scope, stat_block};
use tidegate_types::{ConnectionInfo, EndStream};

// ANCHOR: preamble
/// The filter's type: this is what the registry gets.
pub struct Preamble;

/// What stands in `typed_config`.
#[derive(Deserialize)]
pub struct Config {
    /// What every client must send first.
    text: String,
}

stat_block! {
    /// What became of the connections.
    struct PreambleStats {
        counters {
            /// They began as they should.
            accepted,
            /// They did not.
            refused,
        }
    }
}

/// What lives as long as the configuration; shared by all workers.
pub struct Factory {
    preamble: Vec<u8>,
    stats: PreambleStats,
}

impl NetworkFilterType for Preamble {
    const NAME: &'static str = "example.filters.network.preamble";
    const TYPE_URL: &'static str = "type.googleapis.com/example.filters.network.preamble.v1.Preamble";
    type Config = Config;
    type Factory = Factory;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Factory, String> {
        if config.text.is_empty() {
            return Err("`text` must not be empty".to_owned());
        }
        let stats = PreambleStats::new(cx.stats, Scope::root().child("preamble"));
        Ok(Factory { preamble: config.text.into_bytes(), stats })
    }

    fn open(factory: &Arc<Factory>, _: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Connection { factory: factory.clone(), held: BytesMut::new() })
    }
}
// ANCHOR_END: preamble

// ANCHOR: preamble_hook
/// One connection.
struct Connection {
    factory: Arc<Factory>,
    /// What came so far of the preamble.
    held: BytesMut,
}

impl NetworkFilter for Connection {
    fn on_read(
        &mut self,
        _: &Rc<ConnectionInfo>,
        data: &mut BytesMut,
        end: EndStream,
    ) -> Step<'static, NetworkFlow> {
        let Factory { preamble, stats } = &*self.factory;
        // A TCP stream has no messages: the preamble may come in any number of parts. What stays in `data`
        // goes on to the next filter: nothing, for now.
        self.held.unsplit(data.split());
        if self.held.starts_with(preamble) {
            stats.accepted().inc();
            self.held.advance(preamble.len());
            *data = std::mem::take(&mut self.held);
            // Done with this connection: its bytes pass without this filter from now on.
            return Step::Now(NetworkFlow::Skip);
        }
        if preamble.starts_with(&self.held) && end == EndStream::No {
            return Step::Now(NetworkFlow::Continue);
        }
        stats.refused().inc();
        Step::Now(NetworkFlow::close("no_preamble"))
    }

    fn wants(&self) -> Wants {
        Wants::Reads
    }
}
// ANCHOR_END: preamble_hook

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tidegate_testkit::network::NetworkHarness;

    use super::*;

    // ANCHOR: preamble_test
    #[tokio::test]
    async fn the_preamble_may_come_in_parts_and_goes_no_further() {
        let harness = NetworkHarness::new::<Preamble>(r#"{"text": "HELO\n"}"#).unwrap();
        let mut run = harness.open();
        let (flow, rest) = run.on_read("HE", EndStream::No).await;
        assert!(matches!(flow, NetworkFlow::Continue));
        assert_eq!(rest, "");
        let (flow, rest) = run.on_read("LO\nGET /", EndStream::No).await;
        assert!(matches!(flow, NetworkFlow::Skip));
        assert_eq!(rest, "GET /");
        assert_eq!(harness.stat("preamble.accepted"), Some(1));
    }
    // ANCHOR_END: preamble_test

    #[tokio::test]
    async fn anything_else_is_closed_at_its_first_wrong_byte() {
        let harness = NetworkHarness::new::<Preamble>(r#"{"text": "HELO\n"}"#).unwrap();
        for (bytes, end) in [("HX", EndStream::No), ("HELO", EndStream::Yes)] {
            let (flow, _) = harness.open().on_read(bytes, end).await;
            assert!(matches!(flow, NetworkFlow::Close(close) if close.reason == "no_preamble"));
        }
        assert_eq!(harness.stat("preamble.refused"), Some(2));
    }

    #[test]
    fn an_empty_preamble_is_refused() {
        let problems = NetworkHarness::new::<Preamble>(r#"{"text": ""}"#).err().unwrap();
        assert_eq!(problems[0].to_string(), "typed_config: `text` must not be empty");
    }
}
