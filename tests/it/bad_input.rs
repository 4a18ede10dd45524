//! Mistakes of the caller's: a clear error at once, and nothing sent twice.

use std::time::{Duration, Instant};

use palisade::{Classified, DeadlineLayer, Fault, RetryLayer, TimeoutLayer};
use tower::ServiceBuilder;
use tower_cassandra::{Batch, BoxClient, Client, Error, ErrorKind, Response, Statement, Timeouts};

use crate::cluster::client_with_table;

/// A client that would repeat whatever it may.
async fn client(table: &str) -> Option<BoxClient> {
    let bare = client_with_table(table, "k int PRIMARY KEY, v text, b blob").await?;
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(10))))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(5))))
        .service(bare.stack().clone());
    Some(Client::new(stack).boxed())
}

/// The error, which is the caller's and came after at most this many frames to the server.
fn mistake(outcome: Result<Response, Error>, kind: ErrorKind, frames: usize) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.class().fault(), Fault::Caller, "{error}");
    assert!(!error.may_have_been_applied(), "{error}");
    assert!(!error.is_retryable() && !error.is_timeout() && !error.is_overload(), "{error}");
    assert_eq!(error.attempts().unwrap().len(), frames, "{error}");
    error
}

#[tokio::test]
async fn a_statement_that_is_no_cql_is_a_syntax_error() {
    let Some(client) = client("syntax").await else { return };
    mistake(client.query("SELEKT * FROM syntax").await, ErrorKind::Syntax, 1);
    mistake(client.execute("SELECT FROM WHERE k = ?", (1,)).await, ErrorKind::Syntax, 1);
    let error = client.prepare("SELECT FROM").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Syntax);
    assert!(error.to_string().starts_with("the statement could not be prepared"), "{error}");
    mistake(client.query("").await, ErrorKind::Syntax, 1);
}

#[tokio::test]
async fn names_that_do_not_exist_are_invalid() {
    let Some(client) = client("names").await else { return };
    let error = mistake(client.query("SELECT * FROM nowhere.t").await, ErrorKind::Invalid, 1);
    assert!(error.to_string().contains("nowhere"), "{error}");
    mistake(client.execute("SELECT * FROM no_such_table WHERE k = ?", (1,)).await, ErrorKind::Invalid, 1);
    mistake(client.execute("SELECT nothing FROM names WHERE k = ?", (1,)).await, ErrorKind::Invalid, 1);
    mistake(client.query("CREATE TABLE names (k int PRIMARY KEY)").await, ErrorKind::AlreadyExists, 1);
}

#[tokio::test]
async fn values_that_do_not_fit_never_leave() {
    let Some(client) = client("values").await else { return };
    let insert = "INSERT INTO values (k, v) VALUES (?, ?)";
    client.execute(insert, (1, "one")).await.unwrap();
    for error in [
        mistake(client.execute(insert, (1,)).await, ErrorKind::Values, 0),
        mistake(client.execute(insert, (1, "one", 2)).await, ErrorKind::Values, 0),
        mistake(client.execute(insert, ("one", "one")).await, ErrorKind::Values, 0),
        mistake(client.execute(insert, (1, 1)).await, ErrorKind::Values, 0),
        mistake(client.execute(insert, ()).await, ErrorKind::Values, 0),
        mistake(
            client.batch(Batch::logged().with(insert, (2, "two")).with(insert, (3,))).await,
            ErrorKind::Values,
            0,
        ),
    ] {
        assert!(error.to_string().starts_with("the values do not fit the statement: "), "{error}");
    }
    assert_eq!(client.query("SELECT k FROM values").await.unwrap().rows_num(), 1);

    let error = mistake(client.execute("TRUNCATE values", (1,)).await, ErrorKind::Values, 0);
    assert!(error.to_string().contains("takes no values"), "{error}");
}

#[tokio::test]
async fn values_without_a_marker_or_markers_without_a_value_are_told() {
    let Some(client) = client("markers").await else { return };
    let error = mistake(client.execute("SELECT k FROM markers", (1,)).await, ErrorKind::Values, 1);
    assert!(error.to_string().starts_with("the values do not fit the statement: "), "{error}");
    mistake(client.query("SELECT k FROM markers WHERE k = ?").await, ErrorKind::Invalid, 1);
}

/// Too large for the server, for a partition key, and for a frame.
#[tokio::test]
async fn what_is_too_large_is_refused_and_the_session_stays_usable() {
    let Some(client) = client("large").await else { return };
    let insert = Statement::new("INSERT INTO large (k, b) VALUES (?, ?)").idempotent(true);
    client.execute(insert.clone(), (1, vec![0_u8; 1_000])).await.unwrap();
    let began = Instant::now();
    let error = client.execute(insert.clone(), (1, vec![0_u8; 20 << 20])).await.unwrap_err();
    assert_eq!(error.attempts().unwrap().len(), 1, "sent twice: {error}");
    assert_eq!(error.class().fault(), Fault::Caller, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    client.execute(insert, (1, vec![1_u8; 1_000])).await.unwrap();
}

#[tokio::test]
async fn a_partition_key_that_is_too_long_never_leaves() {
    let Some(bare) = client_with_table("long_keys", "k text PRIMARY KEY").await else { return };
    let select = "SELECT k FROM long_keys WHERE k = ?";
    bare.execute(select, ("short",)).await.unwrap();
    let error = bare.execute(select, ("x".repeat(70_000),)).await.unwrap_err();
    assert_eq!(error.class().fault(), Fault::Caller, "{error}");
    assert!(!error.may_have_been_applied());
}
