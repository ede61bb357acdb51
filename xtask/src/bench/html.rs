//! The report as one HTML page with inline SVG plots: nothing is loaded from anywhere.
//!
//! For each scenario the table, bars of the figure by which it is judged, and the curve of latencies over
//! "nines". Start from [`render`].

use std::fmt::Write;

use super::report::{Report, ScenarioResult};
use super::scenario::Shape;
use super::table::{columns, verdicts};

/// The whole page.
pub(super) fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = String::from(HEAD);
    page.push_str(&format!(
        "<p>{}, {} CPUs, Linux {}. Medians of {} rounds of {} s; the proxy alone on one CPU, load and origin on \
         another. Only ratios within one run mean anything.</p>\n",
        escape(&machine.cpu),
        machine.cpus,
        escape(&machine.kernel),
        report.rounds,
        report.seconds_per_round
    ));
    for scenario in &report.scenarios {
        section(&mut page, scenario);
    }
    page.push_str("</body></html>\n");
    page
}

fn section(page: &mut String, scenario: &ScenarioResult) {
    page.push_str(&format!("<h2>{}</h2>\n<p>{}</p>\n", escape(&scenario.name), escape(&scenario.title)));
    table(page, scenario);
    let ratios = scenario.ratios();
    if let Some(subject) = scenario.subject().filter(|_| !ratios.is_empty()) {
        let ratios: Vec<String> =
            ratios.iter().map(|(peer, ratio)| format!("{ratio:.2} &times; {peer}")).collect();
        page.push_str(&format!("<p>{}: {}</p>\n", escape(subject), ratios.join(", ")));
    }
    for verdict in verdicts(scenario) {
        page.push_str(&format!("<p>Goal: {}</p>\n", escape(&verdict)));
    }
    page.push_str("<div class=\"plots\">\n");
    bars(page, scenario);
    if !matches!(scenario.shape, Shape::Idle | Shape::IdleTimeout | Shape::Stale) {
        curves(page, scenario);
    }
    page.push_str("</div>\n");
}

fn table(page: &mut String, scenario: &ScenarioResult) {
    let columns = columns(scenario.shape);
    page.push_str("<table><tr><th>proxy</th>");
    for column in columns {
        page.push_str(&format!("<th>{}</th>", column.title));
    }
    page.push_str("</tr>\n");
    for result in &scenario.results {
        page.push_str(&format!("<tr><td>{} {}</td>", escape(&result.proxy), escape(&result.version)));
        match &result.failed {
            Some(reason) => {
                page.push_str(&format!("<td colspan=\"{}\">failed: {}</td>", columns.len(), escape(reason)))
            }
            None => {
                for column in columns {
                    page.push_str(&format!("<td>{:.*}</td>", column.decimals, (column.of)(&result.median)));
                }
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

/// Horizontal bars: CPU time in user and system mode, or bytes a connection; a dot for each round.
fn bars(page: &mut String, scenario: &ScenarioResult) {
    let measured: Vec<_> = scenario.results.iter().filter(|result| !result.samples.is_empty()).collect();
    let figures =
        measured.iter().flat_map(|result| result.samples.iter()).map(|sample| scenario.figure(sample));
    let widest = figures.fold(1e-9, f64::max);
    let scale = |value: f64| value.max(0.0) / widest * BAR_WIDTH;
    let (title, decimals) = match scenario.shape {
        Shape::Idle => ("bytes of RSS an idle connection", 0),
        Shape::Stale => ("failed requests in percent, the worse of GET and POST", 3),
        Shape::IdleTimeout => ("CPU time while idle, percent of a core", 3),
        _ => ("CPU us a request: user (dark), system (light); a dot is one round", 2),
    };
    let height = 30 + measured.len() * 30;
    let _ = write!(
        page,
        "<svg width=\"560\" height=\"{height}\" viewBox=\"0 0 560 {height}\">\n<text x=\"0\" y=\"14\">{title}</text>\n"
    );
    for (row, result) in measured.iter().enumerate() {
        let y = 26 + row * 30;
        let colour = colour(&result.proxy);
        let figure = scenario.figure(&result.median);
        let dark = if matches!(scenario.shape, Shape::Idle | Shape::IdleTimeout | Shape::Stale) {
            figure
        } else {
            result.median.user_us
        };
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{}\">{}</text>\
             <rect x=\"80\" y=\"{y}\" width=\"{:.1}\" height=\"20\" fill=\"{colour}\" opacity=\"0.45\"/>\
             <rect x=\"80\" y=\"{y}\" width=\"{:.1}\" height=\"20\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{figure:.decimals$}</text>",
            y + 15,
            escape(&result.proxy),
            scale(figure),
            scale(dark),
            86.0 + BAR_WIDTH,
            y + 15,
        );
        for sample in &result.samples {
            let x = 80.0 + scale(scenario.figure(sample));
            let _ = writeln!(page, "<circle cx=\"{x:.1}\" cy=\"{}\" r=\"2.5\" fill=\"#222\"/>", y + 10);
        }
    }
    page.push_str("</svg>\n");
}

/// Latency over quantiles: the abscissa counts nines, the ordinate is logarithmic.
fn curves(page: &mut String, scenario: &ScenarioResult) {
    let points =
        || scenario.results.iter().flat_map(|result| result.latency_curve.iter().map(|(_, us)| us.max(1.0)));
    let low = 10_f64.powf(points().fold(f64::MAX, f64::min).log10().floor());
    let high = 10_f64.powf(points().fold(low * 10.0, f64::max).log10().ceil());
    if points().next().is_none() {
        return;
    }
    let x = |quantile: f64| 60.0 + -(1.0 - quantile).log10() / MOST_NINES * 400.0;
    let y = |us: f64| 220.0 - (us.max(low) / low).log10() / (high / low).log10() * 190.0;
    page.push_str("<svg width=\"560\" height=\"250\" viewBox=\"0 0 560 250\">\n<text x=\"0\" y=\"14\">latency in us by quantile</text>\n");
    for (quantile, label) in [(0.0, "min"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")]
    {
        let at = x(quantile);
        let _ = writeln!(
            page,
            "<line x1=\"{at:.1}\" y1=\"30\" x2=\"{at:.1}\" y2=\"220\" class=\"grid\"/><text x=\"{at:.1}\" y=\"238\" text-anchor=\"middle\">{label}</text>"
        );
    }
    let mut mark = low;
    while mark <= high * 1.01 {
        let at = y(mark);
        let _ = writeln!(
            page,
            "<line x1=\"60\" y1=\"{at:.1}\" x2=\"460\" y2=\"{at:.1}\" class=\"grid\"/><text x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{mark:.0}</text>",
            at + 4.0
        );
        mark *= 10.0;
    }
    let drawn = scenario.results.iter().filter(|result| !result.latency_curve.is_empty());
    for (row, result) in drawn.enumerate() {
        let colour = colour(&result.proxy);
        let line: Vec<String> = result
            .latency_curve
            .iter()
            .map(|(quantile, us)| format!("{:.1},{:.1}", x(*quantile), y(*us)))
            .collect();
        let _ = writeln!(
            page,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"470\" y=\"{}\" fill=\"{colour}\">{}</text>",
            line.join(" "),
            44 + row * 18,
            escape(&result.proxy)
        );
    }
    page.push_str("</svg>\n");
}

const BAR_WIDTH: f64 = 400.0;

/// Where the latency curve ends: four nines.
const MOST_NINES: f64 = 4.0;

fn colour(proxy: &str) -> &'static str {
    match proxy {
        "tidegate" => "#0b6e99",
        "nginx" => "#3a7d34",
        "haproxy" => "#b5651d",
        "envoy" => "#8e3b8e",
        _ => "#555555",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tidegate benchmark</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: 2px 12px; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
.plots { display: flex; flex-wrap: wrap; gap: 20px; margin-top: 1em; align-items: flex-start; }
svg text { font: 12px system-ui, sans-serif; } .grid { stroke: #ddd; }
</style></head><body>
<h1>Tidegate benchmark</h1>
";

#[cfg(test)]
mod tests {
    use super::super::report::examples::{report, scenario};
    use super::render;

    #[test]
    fn a_page_stands_alone_and_escapes() {
        let page = render(&report(vec![scenario("h1-small", &[("tidegate", 5.0), ("haproxy", 4.0)])]));
        assert!(page.contains("&lt;title&gt;"));
        assert!(page.contains("<polyline") && page.contains("<rect"));
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("NaN"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn a_scenario_without_results_is_no_panic() {
        let mut empty = scenario("h1-small", &[("tidegate", 5.0)]);
        empty.results[0].samples.clear();
        empty.results[0].latency_curve.clear();
        assert!(render(&report(vec![empty])).contains("h1-small"));
    }
}
