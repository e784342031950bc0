//! Operators: who logs in, who holds which role, and the sockets of the logins.
//!
//! A login outlives the server where that has a store: the next one knows it by the same sid and the
//! same bearer, with a higher generation.

use adjutant_actors::model::measure::check_name;
use adjutant_actors::model::role::Verb;
use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap, LOCATION, SEC_WEBSOCKET_PROTOCOL};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::server::browser;
use crate::server::caller::{Authority, Bearer, Body, shown};
use crate::server::links::{Bearing, NoLogin, Welcome};
use crate::server::openapi::{LoggedIn, OperatorList, OperatorShown};
use crate::server::problem::{self, Problem};
use crate::server::{App, Shared};

/// The subprotocol of a link.
const PROTOCOL: &str = "adjutant";

/// The subprotocol by which a browser brings its bearer.
const BEARER_PROTOCOL: &str = "adjutant.bearer.";

/// Roles of one login, at most.
const ROLES_MAX: usize = 16;

/// Names that a login cannot ask for: those that the server and the engine give.
const GIVEN: [&str; 3] = ["op-", "br-", "hk-"];

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    /// Names under which runs, sessions and blueprints reach this operator.
    #[serde(default)]
    roles: Vec<String>,
    /// Whether to take the roles from whoever holds them.
    #[serde(default)]
    take_over: bool,
}

/// Logs an operator in. The answer is the one place where its bearer is shown.
#[utoipa::path(post, path = "/v1/operators", tag = "operators", request_body = LogIn,
    responses((status = 201, body = LoggedIn)))]
pub(crate) async fn log_in(
    State(app): State<Shared>,
    _: Operating,
    Body(wish): Body<LogIn>,
) -> Result<Response, Problem> {
    let (welcome, roles) = welcome(&app, wish.roles, wish.take_over).await?;
    let place = [(LOCATION, format!("/v1/operators/{}", welcome.sid))];
    let answer = json!({
        "sid": welcome.sid,
        "token": welcome.token,
        "roles": roles,
        "generation": welcome.generation,
    });
    Ok((StatusCode::CREATED, place, Json(answer)).into_response())
}

/// Logs an operator in under these roles, each once.
pub(crate) async fn welcome(
    app: &App,
    mut roles: Vec<String>,
    take_over: bool,
) -> Result<(Welcome, Vec<String>), Problem> {
    roles.sort_unstable();
    roles.dedup();
    if roles.len() > ROLES_MAX {
        let detail = format!("a login has at most {ROLES_MAX} roles");
        return Err(Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    for role in &roles {
        check_name("role", role)?;
        if GIVEN.iter().any(|given| role.starts_with(given)) {
            let detail = format!("the role `{role}` begins as the names that are given here");
            return Err(Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
    }
    let since = app.engine.now()?.unix;
    let welcome = app.links.log_in(&app.engine, roles.clone(), take_over, since).await;
    Ok((welcome.map_err(refused)?, roles))
}

fn refused(no: NoLogin) -> Problem {
    match no {
        NoLogin::Held(holders) => {
            let detail = "another login holds a role that was asked for";
            Problem::new(StatusCode::CONFLICT, "roles_held", detail).with("holders", holders.into())
        }
        NoLogin::Reserved(role) => {
            let detail = format!("the host has registered `{role}` itself");
            Problem::new(StatusCode::CONFLICT, "role_reserved", detail)
        }
        NoLogin::Full(max) => {
            let detail = format!("{max} operators are logged in, as many as may");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_operators", detail)
        }
        NoLogin::Unkept(problem) => problem,
        NoLogin::Random => Problem::of_status(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the system gave no random bytes for a bearer",
        ),
    }
}

/// Proof that the admin or an operator asks: who may log operators in, and see who is.
pub(crate) struct Operating;

impl FromRequestParts<Shared> for Operating {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let authority = Authority::from_request_parts(parts, app).await?;
        authority.may(app, Verb::AttachSession).await?;
        Ok(Self)
    }
}

/// Lists who is logged in and holds what.
#[utoipa::path(get, path = "/v1/operators", tag = "operators",
    responses((status = 200, body = OperatorList)))]
pub(crate) async fn list(State(app): State<Shared>, _: Operating) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "operators": app.links.list() })))
}

/// The sid of the path, whose holder, or the admin, asks.
pub(crate) struct Holder(String);

impl FromRequestParts<Shared> for Holder {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let Ok(Path(sid)) = Path::<String>::from_request_parts(parts, app).await else {
            return Err(unknown(parts.uri.path()));
        };
        let offered = offered(&parts.headers);
        if offered.is_none() && by_cookie(app, parts)? {
            let known = app.links.show(&sid).is_some();
            return if known { Ok(Self(sid)) } else { Err(unknown(&sid)) };
        }
        let bearer = match shown(&parts.headers) {
            Some(bearer) => bearer,
            None => Bearer::from_request_parts(parts, app).await?.0,
        };
        let admin = app.admin.is(&bearer);
        match app.links.bearing(&sid, &bearer) {
            Some(Bearing::Holder) => Ok(Self(sid)),
            Some(_) if admin => Ok(Self(sid)),
            None if admin => Err(unknown(&sid)),
            Some(Bearing::Other) => {
                let detail = "the bearer is another login's";
                Err(Problem::new(StatusCode::FORBIDDEN, "not_the_holder", detail))
            }
            // Who is nobody does not learn which logins there are.
            None | Some(Bearing::Unknown) => {
                Err(Problem::unauthenticated("the bearer is not this login's"))
            }
        }
    }
}

/// Whether the admin asks from the server's own page. No script can send the page's key with a socket,
/// so to a browser the cookie opens none.
fn by_cookie(app: &App, parts: &Parts) -> Result<bool, Problem> {
    let headers = &parts.headers;
    Ok(!headers.contains_key(AUTHORIZATION) && browser::is_admin(app, &parts.method, headers)?)
}

pub(crate) fn unknown(sid: &str) -> Problem {
    let detail = format!("there is no login {}", problem::shown(sid));
    Problem::new(StatusCode::NOT_FOUND, "operator_not_found", detail)
}

/// The bearer that a browser brings as a subprotocol.
pub(crate) fn offered(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    names.map(str::trim).find_map(|name| name.strip_prefix(BEARER_PROTOCOL))
}

/// Shows a login and its link.
#[utoipa::path(get, path = "/v1/operators/{sid}", tag = "operators",
    params(("sid" = String, Path, description = "The login.")),
    responses((status = 200, body = OperatorShown)))]
pub(crate) async fn read(
    State(app): State<Shared>,
    Holder(sid): Holder,
) -> Result<Json<Value>, Problem> {
    app.links.show(&sid).map(Json).ok_or_else(|| unknown(&sid))
}

/// Ends a login. What was asked of it is refused.
#[utoipa::path(delete, path = "/v1/operators/{sid}", tag = "operators",
    params(("sid" = String, Path, description = "The login.")),
    responses((status = 204, description = "logged out")))]
pub(crate) async fn log_out(
    State(app): State<Shared>,
    Holder(sid): Holder,
) -> Result<StatusCode, Problem> {
    if app.links.log_out(&app.engine, &sid).await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(gone(&app, &sid))
    }
}

/// What the holder of a login that is no more is told.
pub(crate) fn gone(app: &App, sid: &str) -> Problem {
    let shown = app.links.show(sid).unwrap_or_default();
    let problem =
        Problem::new(StatusCode::GONE, "operator_gone", "this login is no more: log in again");
    let told =
        ["reason", "taken_over_by_generation"].into_iter().filter(|name| !shown[name].is_null());
    told.fold(problem, |problem, name| problem.with(name, shown[name].clone()))
}

/// Gives a login a socket, in place of one that it may have.
///
/// A WebSocket of text frames. The bearer comes in the header, or as the subprotocol
/// `adjutant.bearer.TOKEN` beside `adjutant`.
#[utoipa::path(get, path = "/v1/operators/{sid}/ws", tag = "operators",
    params(("sid" = String, Path, description = "The login.")),
    responses((status = 101, description = "the socket is open")))]
pub(crate) async fn attach(
    State(app): State<Shared>,
    Holder(sid): Holder,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade =
        upgrade.map_err(|refused| Problem::of_status(refused.status(), refused.body_text()))?;
    let Some(way) = app.links.way_to(&sid) else { return Err(gone(&app, &sid)) };
    let bearer = offered(&headers).map(|bearer| format!("{BEARER_PROTOCOL}{bearer}"));
    let protocols = [Some(PROTOCOL.to_owned()), bearer].into_iter().flatten();
    let bytes = app.links.cfg().frame_bytes;
    let upgrade = upgrade.protocols(protocols).max_message_size(bytes).max_frame_size(bytes);
    Ok(upgrade.on_upgrade(async move |socket| {
        // A link that ended meanwhile drops the socket.
        let _ = way.send(socket).await;
    }))
}
