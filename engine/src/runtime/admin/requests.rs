//! Requests of operators as HTTP has them: what they may say, and how they are answered.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::asking::{Outcome, Search, Shards, Silent};
use super::messages;
use crate::model::admin::{
    LINES_MAX, MessageReport, QueueReport, Reach, SiteList, SiteReport, Steer, SteerRequest,
    Steered, Verb,
};
use crate::model::message::MessageId;

/// Of a request; names are short.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Lines of a list when nobody says how many.
const LINES: usize = 20;

/// Why a request is not done, as JSON.
struct Refusal {
    status: StatusCode,
    said: Box<Said>,
}

#[derive(Serialize)]
struct Said {
    error: String,
    /// Of an order: what was done all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<Steered>,
}

impl Refusal {
    fn new(status: StatusCode, error: String) -> Self {
        Self { status, said: Box::new(Said { error, done: None }) }
    }

    /// What was done in part is no success: who gave the order has to look.
    fn in_part(status: StatusCode, error: String, done: Steered) -> Self {
        Self { status, said: Box::new(Said { error, done: Some(done) }) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.said)).into_response()
    }
}

impl From<Silent> for Refusal {
    fn from(silent: Silent) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, silent.to_string())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

type Answered<T> = Result<Json<T>, Refusal>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    top: Option<usize>,
}

impl Top {
    fn lines(self) -> usize {
        self.top.unwrap_or(LINES).min(LINES_MAX)
    }
}

/// What is asked by which path.
pub(super) fn router(shards: Shards) -> Router {
    let steering = |verb: Verb| {
        post(move |State(shards), body: Result<Json<SteerRequest>, JsonRejection>| async move {
            steer(&shards, verb, body?.0).await
        })
    };
    let mut router = Router::new()
        .route("/v1/sites", get(sites))
        .route("/v1/sites/{name}", get(site))
        .route("/v1/queue", get(queue))
        .route("/v1/messages/{id}", get(message));
    for verb in [Verb::Hold, Verb::Release, Verb::Flush, Verb::Cancel, Verb::Reroute] {
        router = router.route(&format!("/v1/{}", verb.name()), steering(verb));
    }
    let nothing =
        || async { Refusal::new(StatusCode::NOT_FOUND, "there is no such path".to_owned()) };
    router.fallback(nothing).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(shards)
}

async fn sites(
    State(shards): State<Shards>,
    top: Result<Query<Top>, QueryRejection>,
) -> Answered<SiteList> {
    Ok(Json(shards.sites(top?.0.lines()).await?))
}

async fn site(State(shards): State<Shards>, Path(name): Path<String>) -> Answered<Vec<SiteReport>> {
    let reports = shards.site(&name).await?;
    if reports.is_empty() { Err(unknown_site(&name)) } else { Ok(Json(reports)) }
}

async fn queue(
    State(shards): State<Shards>,
    top: Result<Query<Top>, QueryRejection>,
) -> Answered<QueueReport> {
    Ok(Json(shards.queue(top?.0.lines()).await?))
}

async fn message(State(shards): State<Shards>, Path(id): Path<String>) -> Answered<MessageReport> {
    let name: MessageId = id.parse().map_err(|error: crate::model::message::NotAnId| {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
    })?;
    match messages::describe(&shards, name).await? {
        Search::Found(report) => Ok(Json(report)),
        Search::Nowhere => {
            let text = format!("no recipient of {name} is pending: it is over, or was never here");
            Err(Refusal::new(StatusCode::NOT_FOUND, text))
        }
        Search::NotYet => {
            let text = "the spool is still being read after the start: ask again in a moment";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text.to_owned()))
        }
    }
}

/// Counts first: what nobody knows is not steered.
async fn steer(shards: &Shards, verb: Verb, request: SteerRequest) -> Answered<Steered> {
    let SteerRequest { scope, dry_run, for_seconds, reason } = request;
    let reach = named(shards, scope).await?;
    let lasts = for_seconds.map(Duration::from_secs);
    let (order, reason) = (shards.next_order(), printable(&reason));
    let steer = Steer { verb, reach, dry_run: true, order, lasts, reason };
    let counted = shards.count(steer.clone()).await?;
    if !counted.known {
        return Err(match &steer.reach {
            Reach::Site(name) => unknown_site(name),
            other => Refusal::new(StatusCode::NOT_FOUND, format!("{other} is not known")),
        });
    }
    if let Some(why) = counted.refused {
        return Err(Refusal::new(StatusCode::CONFLICT, why));
    }
    if dry_run {
        return Ok(Json(counted));
    }
    match shards.steer(steer).await {
        Outcome::Done(steered) => Ok(Json(steered)),
        Outcome::Refused(why) => Err(Refusal::new(StatusCode::CONFLICT, why)),
        Outcome::InPart { done, why } => Err(Refusal::in_part(StatusCode::CONFLICT, why, done)),
        Outcome::Unknown { done, why } => {
            Err(Refusal::in_part(StatusCode::SERVICE_UNAVAILABLE, why, done))
        }
    }
}

/// A site may be named by a domain whose mail it takes.
async fn named(shards: &Shards, reach: Reach) -> Result<Reach, Refusal> {
    let Reach::Site(name) = reach else { return Ok(reach) };
    let sites = shards.site(&name).await?;
    match &sites[..] {
        [only] => Ok(Reach::Site(only.site.as_str().into())),
        [] => Ok(Reach::Site(name)),
        several => {
            let names: Vec<&str> = several.iter().map(|one| &*one.site).collect();
            let text = format!("mail for {name} goes to several sites: {}", names.join(" and "));
            Err(Refusal::new(StatusCode::CONFLICT, text))
        }
    }
}

fn unknown_site(name: &str) -> Refusal {
    let text = format!("no mail waits for a site, or a domain, of the name {name:?}");
    Refusal::new(StatusCode::NOT_FOUND, text)
}

/// It ends up in logs and on terminals.
fn printable(reason: &str) -> Box<str> {
    /// A sentence or two.
    const REASON_CHARS_MAX: usize = 200;
    let plain = |c: char| if c.is_control() { '?' } else { c };
    reason.chars().take(REASON_CHARS_MAX).map(plain).collect()
}
