//! Users: made, read, changed, removed, listed.

use std::{env, fmt::Write};

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query, State},
    response::IntoResponse,
    routing::get,
};
use http::{StatusCode, header::LOCATION, request::Parts};
use scylla::{DeserializeRow, response::PagingState};
use serde::{Deserialize, Serialize};
use tower_cassandra::{Error, StackConfig, StandardStack, Statement, layers::Priority};

use crate::{App, failure::Failure};

const INSERT: &str = "INSERT INTO users (id, name, email) VALUES (?, ?, ?)";
const SELECT: &str = "SELECT id, name, email FROM users WHERE id = ?";
const DELETE: &str = "DELETE FROM users WHERE id = ?";
const LIST: &str = "SELECT id, name, email FROM users";

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
    /// Where the next page begins, for `?page=`.
    next: Option<String>,
}

#[derive(Deserialize)]
struct From {
    page: Option<String>,
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
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replicas}}}"
    );
    client.query(keyspace_exists).await?;
    let table =
        format!("CREATE TABLE IF NOT EXISTS {keyspace}.users (id bigint PRIMARY KEY, name text, email text)");
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

async fn list(
    State(app): State<App>,
    Importance(priority): Importance,
    Query(From { page }): Query<From>,
) -> Result<Json<Page>, Failure> {
    let from = match page {
        None => None,
        Some(text) => {
            let bytes = bytes_of(&text).ok_or_else(|| {
                Failure::Caller(
                    StatusCode::BAD_REQUEST,
                    "`page` is not what an answer had as `next`".to_owned(),
                )
            })?;
            Some(PagingState::new_from_raw_bytes(bytes))
        }
    };
    let statement = Statement::new(LIST).page_size(PAGE).priority(priority);
    let response = app.client.execute_page(statement, (), from).await?;
    let users = response.rows()?.collect::<Result<_, Error>>()?;
    let next = response.next_page().and_then(PagingState::as_bytes_slice).map(|bytes| text_of(bytes));
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

fn text_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
