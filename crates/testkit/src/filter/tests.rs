#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tidegate_filter::{Cx, Flow, HeadFlow, HttpFilter, RequestFilter, Step};
use tidegate_types::{BodyBuf, EndStream, RequestHead};

use super::*;

/// Records its calls in the stream's state.
struct Recorder;

type Config = BTreeMap<String, String>;

impl HttpFilterType for Recorder {
    const NAME: &'static str = "test.recorder";
    const TYPE_URL: &'static str = "type.googleapis.com/test.Recorder";
    type Config = Config;
    type RouteConfig = Config;
    type Factory = Config;

    fn build(config: Config, _: &FactoryContext<'_>) -> Result<Config, String> {
        Ok(config)
    }

    fn open(factory: &Arc<Config>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Half { config: factory.clone() })
    }
}

struct Half {
    config: Arc<Config>,
}

fn note(cx: &Cx, what: String) {
    cx.stream().set(what);
}

impl RequestFilter for Half {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, _: &'a mut RequestHead, end: EndStream) -> Step<'a, HeadFlow> {
        note(cx, format!("head {end:?} {}", cx.route_configs::<Config>().len()));
        match self.config.get("answer").map(String::as_str) {
            Some("skip") => Step::Now(HeadFlow::Skip),
            Some("buffer") => Step::Now(HeadFlow::Buffer { limit: 4 }),
            Some("ask") => Step::later(async {
                let service = cx.stream().clusters().http("service").unwrap();
                let head = RequestHead::new(Method::GET, "service", "/");
                let answer = service.send(head, Bytes::new(), Duration::from_secs(5)).await;
                note(cx, format!("{:?}", answer.map(|answer| answer.head.status)));
                HeadFlow::Skip
            }),
            _ => Step::Now(HeadFlow::Continue),
        }
    }

    fn on_data<'a>(&'a mut self, cx: &'a Cx, data: &'a mut BodyBuf, end: EndStream) -> Step<'a, Flow> {
        note(cx, format!("data {:?} {end:?}", data.to_bytes()));
        *data = BodyBuf::from(Bytes::from_static(b"-"));
        Step::Now(Flow::Continue)
    }

    fn on_trailers<'a>(&'a mut self, cx: &'a Cx, _: &'a mut HeaderMap) -> Step<'a, Flow> {
        note(cx, "trailers".to_owned());
        Step::Now(Flow::Continue)
    }
}

fn upload() -> Message<RequestHead> {
    Message::new(RequestHead::new(Method::POST, "a", "/")).chunk("ab").chunk("cd")
}

fn harness(answer: &str) -> FilterHarness {
    FilterHarness::new::<Recorder>(&format!(r#"{{"answer": "{answer}"}}"#)).unwrap()
}

/// The last thing noted.
fn last(run: &Run) -> String {
    run.stream().state::<String>().unwrap().to_string()
}

#[tokio::test]
async fn hooks_are_called_in_the_engines_order() {
    let mut run = harness("continue").open();
    let out = run.request(upload()).await.forwarded();
    assert_eq!((out.body(), last(&run)), ("--".into(), "data b\"cd\" Yes".to_owned()));
    assert_eq!(run.stream().request().unwrap().method, Method::POST);

    let mut run = harness("continue").open();
    run.request(upload().trailer("t", "1")).await.forwarded();
    assert_eq!(last(&run), "trailers");

    let mut run = harness("skip").route("{}").unwrap().route("{}").unwrap().open();
    let out = run.request(upload().trailer("t", "1")).await.forwarded();
    assert_eq!((out.body(), last(&run)), ("abcd".into(), "head No 2".to_owned()));
}

#[tokio::test]
async fn a_buffered_body_is_held_to_its_limit() {
    let buffered = harness("buffer").open().request(upload()).await.forwarded();
    assert_eq!(buffered.body(), "abcd");
    let reply = harness("buffer").open().request(upload().chunk("e")).await.reply();
    assert_eq!(reply.status.as_u16(), 413);
}

#[tokio::test(start_paused = true)]
async fn clusters_answer_from_their_script() {
    let head = tidegate_types::ResponseHead::new(http::StatusCode::OK);
    let slow = Answer::Respond { head, body: Bytes::new(), after: Duration::from_secs(9) };
    let service = FakeCluster::new([Answer::status(http::StatusCode::IM_A_TEAPOT), slow]);
    let harness = harness("ask").cluster("service", &service);
    for expected in ["Ok(418)", "Err(TimedOut)", "Err(Failed(\"no scripted answer\"))"] {
        let mut run = harness.open();
        run.request(upload()).await.forwarded();
        assert_eq!(last(&run), expected);
    }
    assert_eq!(service.calls().len(), 3);
}
