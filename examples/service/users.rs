//! Users: made, read, changed, removed, listed.

use std::env;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query, State},
    response::IntoResponse,
    routing::get,
};
use http::{StatusCode, header::LOCATION, request::Parts};
use scylla::DeserializeRow;
use serde::{Deserialize, Serialize};
use tower_cassandra::{Error, StackConfig, StandardStack, Statement, layers::Priority};

use crate::{App, failure::Failure};

const INSERT: &str = "INSERT INTO users (id, name, email) VALUES (?, ?, ?)";
const SELECT: &str = "SELECT id, name, email FROM users WHERE id = ?";
const DELETE: &str = "DELETE FROM users WHERE id = ?";
const LIST: &str = "SELECT id, name, email FROM users LIMIT ?";
const LIST_AFTER: &str = "SELECT id, name, email FROM users WHERE token(id) > token(?) LIMIT ?";

/// Users of a page.
const PAGE: i32 = 100;

/// What a caller tells of a user.
#[derive(Deserialize)]
struct Profile {
    name: String,
    email: String,
}

#[derive(Serialize, DeserializeRow)]
struct User {
    id: i64,
    name: String,
    email: String,
}

#[derive(Serialize)]
struct Page {
    users: Vec<User>,
    /// Where the next page begins, for `?page=`: after this user.
    next: Option<String>,
}

#[derive(Deserialize)]
struct From {
    page: Option<i64>,
}

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/users", get(list).post(create))
        .route("/users/{id}", get(read).put(replace).delete(remove))
}

/// Makes keyspace and table if they are not there, by a session that needs neither.
pub(crate) async fn create_schema(config: &StackConfig) -> Result<(), Box<dyn std::error::Error>> {
    let keyspace =
        config.connection.keyspace.as_deref().ok_or("`connection.keyspace` is not set: name one")?;
    let replicas: u32 = env::var("REPLICAS").map_or(Ok(1), |replicas| replicas.parse())?;
    let mut config = config.clone();
    config.connection.keyspace = None;
    let client = StandardStack::connect(config).await?.client();
    let keyspace_exists = format!(
        "CREATE KEYSPACE IF NOT EXISTS \"{keyspace}\" WITH replication = \
         {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}"
    );
    client.query(keyspace_exists).await?;
    let table = format!(
        "CREATE TABLE IF NOT EXISTS \"{keyspace}\".users (id bigint PRIMARY KEY, name text, email text)"
    );
    client.query(table).await?;
    Ok(())
}

async fn create(
    State(app): State<App>,
    Importance(priority): Importance,
    Json(profile): Json<Profile>,
) -> Result<impl IntoResponse, Failure> {
    // A number of our making, and not one that the cluster hands out: the same insert can be sent twice without harm.
    let user = User { id: fastrand::i64(1..), name: profile.name, email: profile.email };
    write(&app, priority, &user).await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/users/{}", user.id))], Json(user)))
}

async fn read(
    State(app): State<App>,
    Importance(priority): Importance,
    Path(id): Path<i64>,
) -> Result<Json<User>, Failure> {
    let found = app.client.execute(Statement::new(SELECT).priority(priority), (id,)).await?;
    match found.maybe_row()? {
        Some(user) => Ok(Json(user)),
        None => Err(Failure::Caller(StatusCode::NOT_FOUND, format!("there is no user {id}"))),
    }
}

async fn replace(
    State(app): State<App>,
    Importance(priority): Importance,
    Path(id): Path<i64>,
    Json(profile): Json<Profile>,
) -> Result<Json<User>, Failure> {
    let user = User { id, name: profile.name, email: profile.email };
    write(&app, priority, &user).await?;
    Ok(Json(user))
}

async fn remove(
    State(app): State<App>,
    Importance(priority): Importance,
    Path(id): Path<i64>,
) -> Result<StatusCode, Failure> {
    app.client.execute(Statement::new(DELETE).priority(priority), (id,)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A page begins after a user, and not at a paging state of the cluster's: what a caller makes up in place of that is an error of the
/// server, which is repeated and opens circuits for everybody. Who needs paging states outside signs them.
async fn list(
    State(app): State<App>,
    Importance(priority): Importance,
    Query(From { page }): Query<From>,
) -> Result<Json<Page>, Failure> {
    let found = match page {
        None => app.client.execute(Statement::new(LIST).priority(priority), (PAGE,)).await?,
        Some(after) => {
            app.client.execute(Statement::new(LIST_AFTER).priority(priority), (after, PAGE)).await?
        }
    };
    let users = found.rows::<User>()?.collect::<Result<Vec<_>, _>>()?;
    let is_full = i32::try_from(users.len()) == Ok(PAGE);
    let next = users.last().filter(|_| is_full).map(|user| user.id.to_string());
    Ok(Json(Page { users, next }))
}

async fn write(app: &App, priority: Priority, user: &User) -> Result<(), Error> {
    let insert = Statement::new(INSERT).priority(priority);
    app.client.execute(insert, (user.id, &user.name, &user.email)).await.map(drop)
}

/// How important a request is, from its header `x-priority`.
struct Importance(Priority);

impl<S: Sync> FromRequestParts<S> for Importance {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let all = [Priority::Background, Priority::Low, Priority::Normal, Priority::Critical];
        let Some(asked) = parts.headers.get("x-priority") else {
            return Ok(Self(Priority::Normal));
        };
        let known = all.into_iter().find(|priority| asked == priority.as_str());
        known.map(Self).ok_or_else(|| {
            let allowed = "`x-priority` is one of background, low, normal, critical";
            Failure::Caller(StatusCode::BAD_REQUEST, allowed.to_owned())
        })
    }
}
