//! Blueprints that the server keeps: versions by their content, and runs of them.

use adjutant::server::ServerCfg;
use reqwest::Method;
use serde_json::{Value, json};

use crate::desk::{Desk, identity, one_step, problem};

/// The blueprint `one`, told apart by its description.
fn version(text: &str) -> Value {
    let mut document = one_step(&identity());
    document["metadata"] = json!({ "description": text });
    document
}

async fn put(desk: &Desk, document: &Value) -> (u16, Value) {
    let put = desk.ask(Method::PUT, "/v1/blueprints/one", &desk.admin).json(document);
    let told = put.send().await.unwrap();
    (told.status().as_u16(), told.json().await.unwrap())
}

async fn get(desk: &Desk, path: &str) -> Value {
    desk.get(path, &desk.admin).await.json().await.unwrap()
}

async fn behaves(desk: &Desk) {
    let (status, first) = put(desk, &version("first")).await;
    assert_eq!((status, first["hash"].as_str().unwrap().len()), (201, 64));
    // The order of fields and what is said by default make no other content.
    let same: Value = serde_json::from_str(
        &version("first")
            .to_string()
            .replace("\"id\":\"one\"", "\"schema_version\":\"0.1.0\",\"id\":\"one\""),
    )
    .unwrap();
    assert_eq!(put(desk, &same).await.0, 200);
    let (status, second) = put(desk, &version("second")).await;
    assert_eq!(status, 201);
    assert_eq!(get(desk, "/v1/blueprints/one/head").await["hash"], second["hash"]);
    let history = get(desk, "/v1/blueprints/one/history?limit=9").await;
    let hashes = [&history["versions"][0]["hash"], &history["versions"][1]["hash"]];
    assert_eq!(hashes, [&second["hash"], &first["hash"]]);
    let path = format!("/v1/blueprints/one?version={}", first["hash"].as_str().unwrap());
    let old = get(desk, &path).await;
    assert_eq!(old["document"]["metadata"]["description"], "first");

    let run = async |version: &Value| {
        let reference = json!({ "id": "one", "version": version });
        let body = json!({ "blueprint": reference, "input": { "x": 1 } });
        desk.post("/v1/runs?wait=20", &desk.admin, &body).await
    };
    for (wanted, hash) in [(json!("latest"), &second), (first["hash"].clone(), &first)] {
        let run: Value = run(&wanted).await.json().await.unwrap();
        assert_eq!((&run["status"], &run["blueprint_hash"]), (&json!("pass"), &hash["hash"]));
    }
    problem(run(&json!("0".repeat(64))).await, 404, "blueprint_not_found").await;

    let gone = desk.ask(Method::DELETE, "/v1/blueprints/one", &desk.admin).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    problem(run(&json!("latest")).await, 409, "blueprint_archived").await;
    assert_eq!(run(&first["hash"]).await.status(), 200);
    let (status, told) = put(desk, &version("third")).await;
    assert_eq!((status, &told["code"]), (409, &json!("blueprint_archived")));
    assert_eq!(get(desk, "/v1/blueprints").await["blueprints"][0]["archived"], true);
    let back = desk.post("/v1/blueprints/one/unarchive", &desk.admin, &json!({})).await;
    assert_eq!(back.status(), 204);
    assert_eq!(run(&json!("latest")).await.status(), 200);
    assert_eq!(put(desk, &version("first")).await.0, 201, "an old content is the newest again");
    let path = "/v1/blueprints/none/head";
    problem(desk.get(path, &desk.admin).await, 404, "blueprint_not_found").await;
}

#[tokio::test]
async fn versions_are_kept_by_content_run_by_hash_and_archived_in_memory() {
    behaves(&Desk::new().await).await;
}

#[tokio::test]
async fn versions_are_kept_by_content_run_by_hash_and_archived_in_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    behaves(&desk).await;
    let head = get(&desk, "/v1/blueprints/one/head").await;
    desk.end().await;
    let desk = Desk::on(folder.path(), ServerCfg::default()).await;
    assert_eq!(get(&desk, "/v1/blueprints/one/head").await, head);
    desk.end().await;
}

#[tokio::test]
async fn a_put_document_has_the_id_of_its_place_and_no_faults() {
    let desk = Desk::new().await;
    let elsewhere = desk.ask(Method::PUT, "/v1/blueprints/two", &desk.admin);
    let told = elsewhere.json(&version("x")).send().await.unwrap();
    problem(told, 400, "invalid_argument").await;
    let wrong = one_step(&json!({ "name": "a", "kind": "lua", "spec": {} }));
    let (status, told) = put(&desk, &wrong).await;
    assert_eq!((status, &told["code"]), (422, &json!("invalid_blueprint")));
    let later = json!({ "name": "a", "kind": "operator", "spec": { "operator_ref": "ann" } });
    assert_eq!(put(&desk, &one_step(&later)).await.0, 201, "an operator may log in later");
    let observer = desk.session("observer").await;
    let told = desk.ask(Method::PUT, "/v1/blueprints/one", &observer).json(&version("x"));
    problem(told.send().await.unwrap(), 403, "role_violation").await;
    assert_eq!(desk.get("/v1/blueprints/one", &observer).await.status(), 200);
}

#[tokio::test]
async fn blueprints_are_listed_in_pages() {
    let desk = Desk::new().await;
    for id in ["a", "b", "c"] {
        let mut document = version("x");
        document["id"] = json!(id);
        let put = desk.ask(Method::PUT, &format!("/v1/blueprints/{id}"), &desk.admin);
        assert_eq!(put.json(&document).send().await.unwrap().status(), 201);
    }
    let first = get(&desk, "/v1/blueprints?limit=2").await;
    assert_eq!(first["next"], "b");
    let rest = get(&desk, "/v1/blueprints?limit=2&after=b").await;
    assert_eq!((&rest["blueprints"][0]["id"], &rest["next"]), (&json!("c"), &Value::Null));
}
