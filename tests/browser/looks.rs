//! How the page looks: nothing runs over its edge in either theme at either width. With
//! `ADJUTANT_SHOTS` the pictures are kept in the folder that it names.

use std::path::Path;

use serde_json::{Value, json};

use crate::browser::{Browser, Setup};
use crate::served::{Served, asks, shell};

fn fanout(id: &str, agent: &str, line: &str, mode: Option<&str>) -> Value {
    let spec =
        json!({ "program": "sh", "args": ["-c", line], "max_concurrency": 4, "stream_mode": mode });
    json!({
        "id": id, "agents": [{ "name": agent, "kind": "subprocess", "spec": spec }],
        "flow": {
            "kind": "fanout", "items": { "op": "path", "at": "$.items" }, "bind": { "op": "path", "at": "$.x" },
            "body": {
                "kind": "step", "ref": agent,
                "in": { "op": "path", "at": "$.x" }, "out": { "op": "path", "at": "$.y" },
            },
            "join": "all_settled", "out": { "op": "path", "at": "$.out" },
        },
    })
}

/// Work of every kind.
async fn busy(served: &Served) {
    let items: Vec<usize> = (1..=9).collect();
    for id in ["census", "nightly-audit"] {
        let run = served
            .run(&fanout(id, "count", "cat >/dev/null; echo 12", None), json!({ "items": items }))
            .await;
        served.ended(&run).await;
    }
    let line = "echo 'two links are dead: /docs/old, /docs/older' >&2; exit 1";
    let run = served.run(&shell("check-links", "links", line), json!({ "x": 1 })).await;
    served.ended(&run).await;
    let slow = "i=0; while :; do i=$((i+1)); \
        printf '{\"type\":\"partial\",\"chunk\":\"page %d of the site is read\\\\n\"}\\n' $i; sleep 1; done";
    served
        .run(
            &fanout("crawl", "fetch", slow, Some("ndjson_lines")),
            json!({ "items": [1, 2, 3, 4, 5, 6] }),
        )
        .await;
    let ask = json!({
        "question": "Publish the notes of 0.4.0 to the public channel?",
        "choices": ["approve", "deny"], "added": 14, "fixed": 9, "breaking": 1,
    });
    served.run(&asks("release-notes"), json!({ "ask": ask })).await;
    let ask = "Two people own the parser: who should look at issue 812?";
    served.run(&asks("triage"), json!({ "ask": ask })).await;
}

async fn shot(browser: &Browser, name: &str) {
    let wide = "return document.documentElement.scrollWidth <= innerWidth && \
        [...document.querySelectorAll('.scroll')].every((e) => e.scrollWidth <= e.clientWidth)";
    assert_eq!(browser.eval(wide).await, true, "{name} runs over its edge");
    if let Some(folder) = std::env::var_os("ADJUTANT_SHOTS") {
        let picture = browser.client.screenshot().await.unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
    }
}

#[tokio::test]
async fn nothing_runs_over_the_edge_in_either_theme_at_either_width() {
    let served = Served::start();
    busy(&served).await;
    let mut papers = Vec::new();
    for (dark, phone, name) in [
        (false, false, "page"),
        (true, false, "page-dark"),
        (false, true, "page-phone"),
        (true, true, "page-phone-dark"),
    ] {
        let browser = Browser::with(Setup { dark, phone }).await;
        browser.enter(&served).await;
        browser.see(".card", "issue 812").await;
        browser.see("#tree", "fetch").await;
        let width = browser.eval("return innerWidth").await;
        assert_eq!(width == 390, phone, "{width}");
        let paper = browser.eval("return getComputedStyle(document.body).backgroundColor").await;
        papers.push((dark, paper));
        shot(&browser, name).await;
        browser.open("fetch").await;
        browser.see("#detail", "page 1").await;
        shot(&browser, &format!("{name}-task")).await;
        if phone {
            browser.click("nav button[data-tab=system]").await;
            browser.see("#sessions", "operator").await;
            shot(&browser, &format!("{name}-system")).await;
        }
    }
    let of = |dark: bool| papers.iter().find(|(is, _)| *is == dark).unwrap().1.clone();
    assert_ne!(of(false), of(true));
}
