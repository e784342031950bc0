//! What a person does on the page: answer, cancel, retry, reload, and read what agents say.

use serde_json::json;

use crate::browser::Browser;
use crate::served::{Served, asks, shell};

#[tokio::test]
async fn a_question_is_answered_on_the_page_and_its_task_passes() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    browser.see("#waiting-none", "Nothing waits").await;
    let run = served.run(&asks("release"), json!({ "ask": "Which name? <b>bold</b>" })).await;
    browser.see(".card .asked", "Which name? <b>bold</b>").await;
    browser.see("#tree .row.run .status", "waiting").await;
    browser.write(".card textarea", "ma").await;

    // What was typed, the question and the stream outlive a reload.
    browser.client.refresh().await.unwrap();
    browser.see(".card .asked", "Which name?").await;
    let typed = browser.eval("return document.querySelector('.card textarea').value").await;
    assert_eq!(typed, "ma");
    browser.write(".card textarea", "ple").await;
    browser.see(".card .note", "goes as text").await;
    browser.click(".card form button").await;
    browser.see("#confirm-body", "maple").await;
    browser.click("#confirm-yes").await;

    let ended = served.ended(&run).await;
    assert_eq!(ended["status"], "pass", "{ended}");
    assert_eq!(ended["report"]["context"]["said"], "maple");
    browser.see("#waiting-none", "Nothing waits").await;
    browser.see("#tree .row.run .status", "passed").await;
    browser.click("#tree .row.run .caret").await;
    browser.open("approve").await;
    browser.see("#detail .status", "passed").await;
    browser.see("#detail .lines", "Answered: maple").await;
}

#[tokio::test]
async fn an_offered_choice_is_one_click_and_a_confirmation() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let ask = json!({ "question": "Ship it?", "choices": ["approve", "deny"], "build": 812 });
    let run = served.run(&asks("ship"), json!({ "ask": ask })).await;
    browser.see(".card .asked", "Ship it?").await;
    browser.see(".card .facts", "812").await;
    browser.click(".card .picks button:nth-child(2)").await;
    browser.click("#confirm-no").await;
    assert_eq!(served.get(&format!("/v1/runs/{run}")).await["status"], "waiting");
    browser.click(".card .picks button:nth-child(2)").await;
    browser.click("#confirm-yes").await;
    assert_eq!(served.ended(&run).await["report"]["context"]["said"], "deny");
}

#[tokio::test]
async fn a_task_and_a_run_are_cancelled_on_the_page() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let run = served.run(&shell("long", "sleeper", "sleep 600"), json!({ "x": 1 })).await;
    browser.open("sleeper").await;
    browser.see("#detail .status", "running").await;
    browser.client.refresh().await.unwrap();
    browser.see("#detail .status", "running").await;
    browser.click("#detail .actions button").await;
    browser.click("#confirm-yes").await;
    browser.see("#detail .status", "cancelled").await;
    assert_ne!(served.ended(&run).await["status"], "running");

    let run = served.run(&shell("longer", "sleeper", "sleep 600"), json!({ "x": 1 })).await;
    browser.open("longer").await;
    browser.click("#detail .actions button").await;
    browser.click("#confirm-yes").await;
    browser.see("#detail .status", "cancelled").await;
    assert_eq!(served.ended(&run).await["status"], "cancelled");
}

#[tokio::test]
async fn a_blocked_task_shows_its_error_and_is_tried_again() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let line = "echo the disk is full >&2; exit 3";
    let run = served.run_kept(&shell("broken", "failing", line), json!({ "x": 1 })).await;
    assert_eq!(served.ended(&run).await["status"], "blocked");
    browser.open("failing").await;
    browser.see("#detail section.error", "the disk is full").await;
    browser.see("#detail .actions", "Retry").await;
    browser.click("#detail .actions button").await;
    browser.click("#confirm-yes").await;
    browser.see("#detail .lines", "Attempt 2 began").await;
    browser.see("#detail .lines", "Attempt 2 ended").await;
}

#[tokio::test]
async fn what_an_agent_prints_is_text_and_is_seen_as_it_comes() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    let markup = "<script>document.title=1</script><img src=x onerror=document.title=2>";
    let gate = tempfile::tempdir().unwrap();
    let open = gate.path().join("open");
    let said = json!({ "type": "partial", "chunk": markup });
    let last =
        json!({ "type": "final", "ok": true, "content": { "kind": "inline", "value": "the end" } });
    let line = format!(
        "echo '{said}'; while [ ! -e '{}' ]; do sleep 0.05; done; echo '{last}'",
        open.display()
    );
    let blueprint = json!({
        "id": "hostile",
        "agents": [{ "name": "printer", "kind": "subprocess", "spec": {
            "program": "sh", "args": ["-c", line], "stream_mode": "ndjson_lines",
        } }],
        "flow": {
            "kind": "step", "ref": "printer",
            "in": { "op": "path", "at": "$.x" }, "out": { "op": "path", "at": "$.y" },
        },
    });
    let run = served.run(&blueprint, json!({ "x": markup })).await;
    browser.open("printer").await;
    browser.see("#detail .output .stream", "<script>document.title=").await;
    browser.see("#detail .status", "running").await;
    std::fs::write(&open, "").unwrap();
    assert_eq!(served.ended(&run).await["status"], "pass");
    browser.see("#detail .output", "the end").await;
    assert_eq!(browser.eval("return document.title").await, "adjutant");
    let made = "return document.querySelectorAll('#detail script, #detail img').length";
    assert_eq!(browser.eval(made).await, 0);
}

#[tokio::test]
async fn thousands_of_tasks_are_a_window_of_rows() {
    const TASKS: usize = 2000;
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    for number in 0..TASKS {
        let body = json!({ "agent": format!("agent-{number}"), "directive": "wait" });
        served.post("/v1/tasks", &body).await;
    }
    let count = "return document.querySelector('#counts').innerText.includes('2,000')";
    browser.wait(count).await;
    let rows = browser.eval("return document.querySelectorAll('#tree .row').length").await;
    assert!(rows.as_u64().unwrap() < 120, "{rows}");
    browser.write("#filter", "agent-1234").await;
    browser.wait("return document.querySelectorAll('#tree .row').length === 1").await;
    browser.open("agent-1234").await;
    browser.see("#detail .status", "pending").await;
}

#[tokio::test]
async fn the_tree_is_walked_by_the_keyboard() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    served.run(&asks("keys"), json!({ "ask": "Go on?" })).await;
    browser.see("#tree", "approve").await;
    browser.eval("document.querySelector('#tree').focus()").await;
    // Down to the task, and into it; Escape leads back to the tree.
    browser.write("#tree", "\u{E015}\u{E007}").await;
    browser.see("#detail-name", "approve").await;
    browser.write("#detail", "\u{E00C}").await;
    browser.wait("return document.activeElement.id === 'tree'").await;
    // Left twice closes the run.
    browser.write("#tree", "\u{E012}\u{E012}").await;
    browser.wait("return document.querySelectorAll('#tree .row').length === 1").await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_told_and_what_was_typed_stays() {
    let served = Served::start();
    let browser = Browser::new().await;
    browser.enter(&served).await;
    served.run(&asks("away"), json!({ "ask": "Still there?" })).await;
    browser.see(".card .asked", "Still there?").await;
    browser.write(".card textarea", "yes").await;
    drop(served);
    browser.see("#banners", "The stream is behind").await;
    browser.click(".card form button").await;
    browser.click("#confirm-yes").await;
    browser.see("#confirm-error", "cannot be reached").await;
    browser.click("#confirm-no").await;
    let typed = browser.eval("return document.querySelector('.card textarea').value").await;
    assert_eq!(typed, "yes");
}
