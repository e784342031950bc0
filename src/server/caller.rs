//! Who calls, as the request says it: the extractors for bearers, and for bodies and queries whose
//! refusals are problems.
//!
//! A token is decoded here and verified by the engine, in the call that it is for.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::token::{CapToken, TokenFingerprint};
use adjutant_actors::state::auth::Reach;
use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::engine::Caller;
use crate::server::browser;
use crate::server::operators::offered;
use crate::server::problem::Problem;
use crate::server::{App, Shared};

/// The bearer of a request, whatever it is.
pub(crate) struct Bearer(pub(crate) String);

impl FromRequestParts<Shared> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Problem> {
        bearer_of(&parts.headers).map(Self)
    }
}

/// The bearer in the header for it.
fn bearer_of(headers: &HeaderMap) -> Result<String, Problem> {
    let mut headers = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(Problem::unauthenticated("the request has no bearer, or several"));
    };
    let bearer = header.to_str().ok().and_then(|text| {
        let (scheme, bearer) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| bearer.trim().to_owned())
    });
    bearer.ok_or_else(|| Problem::unauthenticated("the request has no bearer"))
}

/// The bearer that a request shows, in whatever place; none where it shows several in one. That in
/// the header for it goes before the one of a subprotocol.
pub(crate) fn shown(headers: &HeaderMap) -> Option<String> {
    if headers.contains_key(AUTHORIZATION) {
        return bearer_of(headers).ok();
    }
    offered(headers).map(str::to_owned)
}

/// Whether a bearer is seen to be good without a look-up: the admin's, or one with a signature of
/// the engine's. Guesses at these cost nothing that could be used up.
pub(crate) fn is_plain(app: &App, bearer: &str) -> bool {
    app.admin.is(bearer)
        || CapToken::decode(bearer).is_ok_and(|token| app.engine.signed(&token).is_ok())
}

/// The token of a request, decoded and not yet verified.
pub(crate) struct Token(pub(crate) CapToken);

impl FromRequestParts<Shared> for Token {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let Bearer(bearer) = Bearer::from_request_parts(parts, app).await?;
        decode(&bearer).map(Self)
    }
}

/// The token that a bearer encodes.
pub(crate) fn decode(bearer: &str) -> Result<CapToken, Problem> {
    CapToken::decode(bearer).map_err(|_| Problem::unauthenticated("the bearer is no token"))
}

/// Who asks a route that operators and the admin use.
pub(crate) enum Authority {
    /// The admin, who may do everything on every task.
    Admin,
    /// The holder of a token, which the engine verifies in the call that it is for.
    Token(CapToken),
}

impl FromRequestParts<Shared> for Authority {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        // A bearer is meant; a cookie is only there.
        if !parts.headers.contains_key(AUTHORIZATION)
            && browser::is_admin(app, &parts.method, &parts.headers)?
        {
            return Ok(Self::Admin);
        }
        let Bearer(bearer) = Bearer::from_request_parts(parts, app).await?;
        if app.admin.is(&bearer) {
            return Ok(Self::Admin);
        }
        decode(&bearer).map(Self::Token)
    }
}

impl Authority {
    /// For the engine's calls.
    pub(crate) fn caller(&self) -> Caller<'_> {
        match self {
            Self::Admin => Caller::Host,
            Self::Token(token) => Caller::Token(token),
        }
    }

    /// Whose idempotency keys are whose. Nobody else's key is ever met.
    pub(crate) fn principal(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Token(token) => format!("{}:{}", token.role, token.agent_id),
        }
    }

    /// Names the token, where it is one.
    pub(crate) fn fingerprint(&self) -> Option<TokenFingerprint> {
        match self {
            Self::Admin => None,
            Self::Token(token) => Some(token.fingerprint()),
        }
    }

    /// Refuses all but the admin.
    #[cfg(feature = "mcp")]
    pub(crate) fn must_be_admin(&self) -> Result<(), Problem> {
        match self {
            Self::Admin => Ok(()),
            Self::Token(_) => Err(admin_only()),
        }
    }

    /// Refuses who may not, for what the server does itself. A worker may only what its token is
    /// bound to, so what names no task of its own is refused to it.
    pub(crate) async fn may(&self, app: &App, verb: Verb) -> Result<(), Problem> {
        if let Self::Token(token) = self
            && token.role == Role::Worker
        {
            return Err(EngineError::RoleViolation { role: token.role, verb }.into());
        }
        Ok(app.engine.verify_as(self.caller(), verb).await?)
    }

    /// As [`Self::may`], for a request that was let through and took its time. Spends no use.
    pub(crate) async fn still_may(&self, app: &App, verb: Verb) -> Result<(), Problem> {
        Ok(app.engine.check_as(self.caller(), verb, Reach::Anywhere).await?)
    }
}

/// Proof that the admin asks.
pub(crate) struct Admin;

impl FromRequestParts<Shared> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        // What only the admin may change takes the token itself.
        if parts.method == Method::GET
            && !parts.headers.contains_key(AUTHORIZATION)
            && browser::is_admin(app, &parts.method, &parts.headers)?
        {
            return Ok(Self);
        }
        let Bearer(bearer) = Bearer::from_request_parts(parts, app).await?;
        if app.admin.is(&bearer) {
            return Ok(Self);
        }
        if decode(&bearer).is_ok() {
            return Err(admin_only());
        }
        Err(Problem::unauthenticated("the bearer is not the admin's token"))
    }
}

fn admin_only() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "admin_only", "this takes the admin's token")
}

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Problem> {
        let Json(body) = Json::from_request(request, app).await?;
        Ok(Self(body))
    }
}

/// The query of a request.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let Query(params) = Query::from_request_parts(parts, app).await?;
        Ok(Self(params))
    }
}
