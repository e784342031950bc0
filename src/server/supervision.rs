//! The supervision tree over HTTP: who stands below whom, with restarts against their limits.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::server::Shared;
use crate::server::caller::Admin;
use crate::server::openapi::SupervisionShown;

/// Shows the supervision tree with restarts against their limits.
#[utoipa::path(get, path = "/v1/supervision", tag = "operations", operation_id = "supervision",
    responses((status = 200, body = SupervisionShown)))]
pub(crate) async fn read(State(app): State<Shared>, _: Admin) -> Json<Value> {
    Json(shown(&app).await)
}

/// The tree as JSON.
pub(crate) async fn shown(app: &Shared) -> Value {
    let tree = app.engine.supervision().await;
    let spawners = tree.spawners.iter().map(|spawner| {
        json!({
            "name": spawner.name,
            "alive": spawner.alive,
            "restarts": spawner.restarts,
            "limit": spawner.limit,
            "within_ms": u64::try_from(spawner.within.as_millis()).unwrap_or(u64::MAX),
        })
    });
    let mailboxes: Map<_, _> = tree.mailboxes.by_kind().into_iter().map(waiting).collect();
    json!({
        "alive": tree.alive,
        "state": { "restarts": tree.state_restarts, "limit": null },
        "sessions": tree.sessions,
        "attempts": tree.attempts,
        "spawners": spawners.collect::<Vec<_>>(),
        "mailboxes": mailboxes,
    })
}

fn waiting((kind, count): (&str, usize)) -> (String, Value) {
    (kind.to_owned(), count.into())
}
