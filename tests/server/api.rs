//! The OpenAPI document: the one that is checked in, the one that is served, and the routes.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;

use crate::desk::Desk;

/// Methods that an operation can have.
const METHODS: [&str; 6] = ["delete", "get", "head", "patch", "post", "put"];

/// One operation of the document.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// Its path, with a word for each parameter.
    pub(crate) asked: String,
    /// Whether it needs a bearer.
    pub(crate) guarded: bool,
}

fn document() -> Value {
    serde_json::from_str(&adjutant::server::openapi()).unwrap()
}

/// Every operation, in the order of the paths.
pub(crate) fn operations() -> Vec<Operation> {
    let document = document();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if METHODS.contains(&method.as_str()) {
                found.push(Operation {
                    method: method.to_uppercase().parse().unwrap(),
                    asked: path.replace('{', "").replace('}', "-1"),
                    guarded: operation["security"] != serde_json::json!([{}]),
                });
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_document_that_is_checked_in_is_the_one_that_is_served() {
    let desk = Desk::new().await;
    let served = desk.client.get(format!("{}/openapi.json", desk.base)).send().await.unwrap();
    assert_eq!(served.headers()["content-type"], "application/json");
    let served = served.text().await.unwrap();
    let kept = fs::read_to_string(root().join("docs/openapi.json")).unwrap_or_default();
    assert!(
        served == kept,
        "docs/openapi.json differs; write it anew: cargo run -- openapi > docs/openapi.json"
    );
    assert!(!served.contains("```"), "an example for embedders is in the document");
}

#[tokio::test]
async fn every_operation_of_the_document_is_a_route_and_lists_its_refusals() {
    let desk = Desk::new().await;
    for operation in operations() {
        let url = format!("{}{}", desk.base, operation.asked);
        let answer = desk.client.request(operation.method.clone(), url).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(status != 404 && status != 405, "{operation:?}: {status}");
        assert_eq!(operation.guarded, status == 401, "{operation:?}: {status}");
    }
    let mut ids = HashSet::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is there twice");
            let refused = &operation["responses"]["default"]["content"];
            let schema = &refused["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path} says not what it does");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { sources(&path, found) } else { found.push(path) }
    }
}

/// A router cannot be asked for its routes, so the text is: `routes!` puts each into the document,
/// and nothing else makes one.
#[test]
fn no_route_is_made_beside_the_document() {
    /// Files with routes that OpenAPI cannot describe, each with its reason.
    // The page's own files and its cookie are for browsers that the server itself sent them to.
    // `/mcp` speaks a protocol of its own, which describes itself.
    const EXCUSED: [&str; 2] = ["src/server/page.rs", "src/server/mcp.rs"];
    const MAKERS: [&str; 5] =
        [".route(", ".route_service(", ".nest(", ".nest_service(", ".fallback_service("];
    let mut files = vec![root().join("src/server.rs")];
    sources(&root().join("src/server"), &mut files);
    let mut beside = Vec::new();
    for file in files {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let makes = |line: &&str| MAKERS.iter().any(|maker| line.contains(maker));
        if !EXCUSED.contains(&path.as_str()) && text.lines().any(|line| makes(&line)) {
            beside.push(path);
        }
    }
    assert!(beside.is_empty(), "routes that are not in the document: {beside:?}");
}
