//! Real peers, where the machine has them: Envoy reads the same files, curl and wrk are clients, nginx is an
//! upstream. Each test says when it is skipped.

use std::process::Command;

use integration_tests::process::{Process, run};
use integration_tests::proxy::Options;
use integration_tests::{Config, Nobody, Origin, Proxy, Wire, binary, documents, examples, wait};

fn envoy() -> Option<std::path::PathBuf> {
    let found = binary::peer("envoy", "ENVOY_BIN");
    if found.is_none() {
        binary::skipped("Envoy (set ENVOY_BIN)");
    }
    found
}

#[test]
fn the_examples_do_the_same_on_envoy() {
    let Some(binary) = envoy() else { return };
    super::examples::behaviour(&Options { binary, ..Options::default() });
}

#[test]
fn envoy_accepts_every_example_and_every_whole_configuration_of_the_book() {
    let Some(envoy) = envoy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut files = examples::all();
    for (number, text) in
        super::documents::configurations(&documents::files(binary::root())).iter().enumerate()
    {
        let file = folder.path().join(format!("{number}.json"));
        std::fs::write(&file, text).unwrap();
        files.push(file);
    }
    // What Envoy does not know, it refuses by its type.
    files.retain(|file| !std::fs::read_to_string(file).unwrap().contains("type.googleapis.com/tidegate."));
    for file in files {
        let mut validate = Command::new(&envoy);
        validate.args(["--mode", "validate", "-l", "warning", "-c"]).arg(&file);
        // Where the paths in examples begin.
        let said = run(validate.current_dir(binary::root()));
        assert_eq!(said.code, Some(0), "{}: {}", file.display(), said.stderr);
    }
}

#[test]
fn curl_talks_through_it() {
    let Some(curl) = binary::peer("curl", "CURL_BIN") else { return binary::skipped("curl") };
    let origin = Origin::answering(|request| {
        let text = format!("{} {}", request.line(), request.body.len());
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let url = format!("http://{}/path", proxy.address);
    let ask = |arguments: &[&str]| {
        run(Command::new(&curl).args(["-sS", "--max-time", "20"]).args(arguments).arg(&url))
    };
    assert_eq!(ask(&[]).stdout, "GET /path HTTP/1.1 0");
    // Above 1 MiB curl expects 100 Continue before it sends.
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    std::fs::write(&large, vec![b'x'; 3 << 20]).unwrap();
    let data = format!("@{}", large.display());
    assert_eq!(ask(&["--data-binary", &data]).stdout, format!("POST /path HTTP/1.1 {}", 3 << 20));
    assert_eq!(ask(&["-H", "transfer-encoding: chunked", "-d", "abc"]).stdout, "POST /path HTTP/1.1 3");
    assert!(ask(&["-I"]).stdout.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn wrk_sees_no_error() {
    let Some(wrk) = binary::peer("wrk", "WRK_BIN") else { return binary::skipped("wrk") };
    let origin = Origin::ok();
    let options = Options { concurrency: 2, ..Options::default() };
    let proxy = options.start(&Config::new(origin.address()));
    let said = run(Command::new(wrk).args(["-t1", "-c20", "-d1s", &format!("http://{}/", proxy.address)]));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("requests in"), "{}", said.stdout);
    assert!(!said.stdout.contains("Socket errors") && !said.stdout.contains("Non-2xx"), "{}", said.stdout);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_5xx"), 0);
}

#[test]
fn nginx_serves_behind_it() {
    let nginx = binary::peer("nginx", "NGINX_BIN")
        .or_else(|| Some("/usr/sbin/nginx".into()).filter(|path: &std::path::PathBuf| path.exists()));
    let Some(nginx) = nginx else { return binary::skipped("nginx") };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // nginx cannot choose a port by itself: one that was free a moment ago.
    let address = Nobody::new().address();
    let body = "nginx".repeat(20_000);
    std::fs::write(at.join("large.txt"), &body).unwrap();
    std::fs::write(
        at.join("nginx.conf"),
        format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; \
             fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
             server {{ listen {address}; root {0}; keepalive_requests 3; }} }}\n",
            at.display()
        ),
    )
    .unwrap();
    // Its workers must not end up as another user, who may not read the folder.
    let mut command = Command::new(nginx);
    command.arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf")).args(["-g", "user root;"]);
    let process = Process::start(&mut command);
    wait::until("nginx", || Wire::try_connect(address).is_ok());
    let proxy = Proxy::start(&Config::new(address));
    let mut client = proxy.connect();
    // It closes each connection after three requests: no request may be lost to that.
    for number in 0..20 {
        let response = client.ask("GET /large.txt HTTP/1.1\r\nhost: a.test\r\n\r\n");
        assert!(
            response.status == 200 && response.text() == body,
            "{number}: {} {}",
            response.head,
            process.output()
        );
    }
    assert_eq!(client.ask("GET /none HTTP/1.1\r\nhost: a.test\r\n\r\n").status, 404);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_5xx"), 0);
}
