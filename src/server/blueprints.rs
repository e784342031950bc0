//! Blueprints that the server keeps: put, shown, archived; each version under the hash of its content.
//!
//! A document is checked when it is put, for all that does not depend on who is logged in, and
//! checked and held against the allowed programs when it is run.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::measure::check_name;
use adjutant_actors::model::role::Verb;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::blueprint::kept;
use crate::server::caller::{Authority, Body, Params};
use crate::server::problem::Problem;
use crate::server::programs;
use crate::server::shelf::{BlueprintVersion, Put, Shelf};
use crate::server::{App, Shared, on_shelf};

/// Entries of one list, where the query does not say and at most.
const PAGE: usize = 20;
const PAGE_MAX: usize = 500;

/// No blueprint of that id, or no version of that hash.
pub(crate) fn not_found(id: &str) -> Problem {
    let detail = format!("no such blueprint or version is kept: {id}");
    Problem::new(StatusCode::NOT_FOUND, "blueprint_not_found", detail)
}

/// The document of a blueprint: its newest version, or that of a hash. One that is archived is
/// found by its hash alone.
pub(crate) async fn document(
    shelf: &std::sync::Arc<dyn Shelf>,
    id: &str,
    hash: Option<&str>,
) -> Result<Value, Problem> {
    let (name, wanted) = (id.to_owned(), hash.map(str::to_owned));
    let found = on_shelf(shelf, move |shelf| shelf.blueprint(&name, wanted.as_deref())).await?;
    let found = found.ok_or_else(|| not_found(id))?;
    if found.archived && hash.is_none() {
        return Err(archived(id));
    }
    serde_json::from_str(&found.document)
        .map_err(|error| EngineError::Internal(error.to_string()).into())
}

fn archived(id: &str) -> Problem {
    let detail = format!("blueprint {id} is archived");
    Problem::new(StatusCode::CONFLICT, "blueprint_archived", detail)
}

/// A version of a blueprint. The time is in milliseconds since 1970.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
pub(crate) struct VersionShown {
    id: String,
    /// Hash of its content.
    hash: String,
    at: u64,
    archived: bool,
    /// Absent in lists.
    document: Option<Value>,
}

/// A page of blueprints, each with its newest version.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct BlueprintList {
    blueprints: Vec<VersionShown>,
    next: Option<String>,
}

/// The versions of a blueprint, the newest first.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct History {
    versions: Vec<VersionShown>,
}

fn shown(version: &BlueprintVersion) -> Value {
    json!({
        "id": version.id,
        "hash": version.hash,
        "at": version.at.saturating_mul(1000),
        "archived": version.archived,
    })
}

/// Puts a document: 201 where it is new or changed, 200 where it was the newest version before.
#[utoipa::path(put, path = "/v1/blueprints/{id}", tag = "blueprints", params(("id" = String, Path, description = "The id of the blueprint.")),
    request_body(content = Object, description = "The document."),
    responses((status = 201, body = VersionShown), (status = 200, body = VersionShown)))]
pub(crate) async fn put(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Body(document): Body<Value>,
) -> Result<Response, Problem> {
    check_name("blueprint id", &id)?;
    let (version, is_new) = keep(&app, &authority, &document, Some(&id)).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&version))).into_response())
}

/// Checks a document and keeps it, under the id that is wanted if one is. Tells whether its newest
/// version is another one than before.
pub(crate) async fn keep(
    app: &App,
    authority: &Authority,
    document: &Value,
    wanted: Option<&str>,
) -> Result<(BlueprintVersion, bool), Problem> {
    authority.may(app, Verb::StartTask).await?;
    let blueprint = programs::read_for_later(&app.engine, &app.cfg, document).await?;
    let id = &blueprint.id;
    check_name("blueprint id", id)?;
    if wanted.is_some_and(|wanted| wanted != id) {
        let detail = format!("the document's id is {id}, and not that of the path");
        return Err(EngineError::InvalidArgument(detail).into());
    }
    // Normalized, so that one content has one hash however it was written; that of its runs.
    let document = serde_json::to_value(&blueprint)
        .map_err(|error| EngineError::Internal(error.to_string()))?;
    let version = BlueprintVersion {
        id: id.clone(),
        hash: kept::digest(&document).to_hex().to_string(),
        at: app.engine.now()?.unix,
        document: document.to_string(),
        archived: false,
    };
    let fresh = version.clone();
    match on_shelf(&app.cfg.shelf, move |shelf| shelf.put_blueprint(&fresh)).await? {
        Put::New => Ok((version, true)),
        Put::Same => Ok((version, false)),
        Put::Archived => Err(archived(id)),
        Put::Full => {
            let detail = "as many blueprints are kept as may be";
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "table_full", detail))
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    limit: Option<usize>,
    /// The last id of the page before.
    #[serde(default)]
    after: String,
}

/// Lists the blueprints by their ids, with their newest versions.
#[utoipa::path(get, path = "/v1/blueprints", tag = "blueprints", params(Page),
    responses((status = 200, body = BlueprintList)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    authority: Authority,
    Params(page): Params<Page>,
) -> Result<Json<Value>, Problem> {
    let (found, next) = newest(&app, &authority, page.limit, page.after).await?;
    let all: Vec<_> = found.iter().map(shown).collect();
    Ok(Json(json!({ "blueprints": all, "next": next })))
}

/// A page of the newest versions, and where the next one begins.
pub(crate) async fn newest(
    app: &App,
    authority: &Authority,
    limit: Option<usize>,
    after: String,
) -> Result<(Vec<BlueprintVersion>, Option<String>), Problem> {
    authority.may(app, Verb::ReadTaskState).await?;
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let found = on_shelf(&app.cfg.shelf, move |shelf| shelf.blueprints(&after, limit)).await?;
    let next = found.last().map(|last| last.id.clone()).filter(|_| found.len() == limit);
    Ok((found, next))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Version {
    /// A hash, or `latest`.
    version: Option<String>,
}

/// Shows a version with its document; the newest, where none is named.
#[utoipa::path(get, path = "/v1/blueprints/{id}", tag = "blueprints",
    params(("id" = String, Path, description = "The id of the blueprint."), Version),
    responses((status = 200, body = VersionShown)))]
pub(crate) async fn read(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Params(wanted): Params<Version>,
) -> Result<Json<Value>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    let hash = wanted.version.filter(|version| version != "latest");
    let name = id.clone();
    let found =
        on_shelf(&app.cfg.shelf, move |shelf| shelf.blueprint(&name, hash.as_deref())).await?;
    let found = found.ok_or_else(|| not_found(&id))?;
    let document: Value = serde_json::from_str(&found.document)
        .map_err(|error| EngineError::Internal(error.to_string()))?;
    let mut told = shown(&found);
    told["document"] = document;
    Ok(Json(told))
}

/// Shows the newest version without its document.
#[utoipa::path(get, path = "/v1/blueprints/{id}/head", tag = "blueprints",
    params(("id" = String, Path, description = "The id of the blueprint.")),
    responses((status = 200, body = VersionShown)))]
pub(crate) async fn head(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    Ok(Json(shown(&head_of(&app, &id).await?)))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Back {
    limit: Option<usize>,
}

/// Lists the versions of a blueprint, the newest first.
#[utoipa::path(get, path = "/v1/blueprints/{id}/history", tag = "blueprints",
    params(("id" = String, Path, description = "The id of the blueprint."), Back),
    responses((status = 200, body = History)))]
pub(crate) async fn history(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Params(back): Params<Back>,
) -> Result<Json<Value>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    let limit = back.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let found = versions(&app, &id, limit).await?;
    if found.is_empty() {
        return Err(not_found(&id));
    }
    let all: Vec<_> = found.iter().map(shown).collect();
    Ok(Json(json!({ "versions": all })))
}

async fn versions(app: &App, id: &str, limit: usize) -> Result<Vec<BlueprintVersion>, Problem> {
    let name = id.to_owned();
    on_shelf(&app.cfg.shelf, move |shelf| shelf.blueprint_history(&name, limit)).await
}

/// The newest version of a blueprint, without its document.
pub(crate) async fn head_of(app: &App, id: &str) -> Result<BlueprintVersion, Problem> {
    versions(app, id, 1).await?.pop().ok_or_else(|| not_found(id))
}

/// Archives a blueprint: it runs no more by its name, and can be taken back.
#[utoipa::path(delete, path = "/v1/blueprints/{id}", tag = "blueprints",
    params(("id" = String, Path, description = "The id of the blueprint.")),
    responses((status = 204, description = "archived")))]
pub(crate) async fn archive(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    set_archived(&app, &authority, &id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes an archived blueprint back.
#[utoipa::path(post, path = "/v1/blueprints/{id}/unarchive", tag = "blueprints",
    params(("id" = String, Path, description = "The id of the blueprint.")),
    responses((status = 204, description = "taken back")))]
pub(crate) async fn unarchive(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    set_archived(&app, &authority, &id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Archives a blueprint, or takes it back.
pub(crate) async fn set_archived(
    app: &App,
    authority: &Authority,
    id: &str,
    archived: bool,
) -> Result<(), Problem> {
    authority.may(app, Verb::StartTask).await?;
    let name = id.to_owned();
    let found =
        on_shelf(&app.cfg.shelf, move |shelf| shelf.archive_blueprint(&name, archived)).await?;
    if found { Ok(()) } else { Err(not_found(id)) }
}
