//! What people do all day.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use scylla::{
    DeserializeRow, SerializeRow,
    client::session_builder::SessionBuilder,
    statement::{Consistency, SerialConsistency},
    value::{Counter, CqlTimestamp, Row},
};
use tower::{Service, ServiceExt};
use tower_cassandra::{Batch, BoxClient, Cassandra, Client, ErrorKind, Kind, Request, Statement};

use crate::cluster::{client_with_table, create_table, session, shared};

#[derive(Debug, PartialEq, DeserializeRow, SerializeRow)]
struct User {
    id: i64,
    name: Option<String>,
    born: CqlTimestamp,
}

#[tokio::test]
async fn rows_are_read_as_the_types_that_the_caller_names() {
    let Some(client) = client_with_table("users", "id bigint PRIMARY KEY, name text, born timestamp").await
    else {
        return;
    };
    let ada = User { id: 7, name: Some("ada".to_owned()), born: CqlTimestamp(-4_866_912_000_000) };
    client.execute("INSERT INTO users (id, name, born) VALUES (?, ?, ?)", &ada).await.unwrap();

    let found = client.execute("SELECT id, name, born FROM users WHERE id = ?", (7_i64,)).await.unwrap();
    assert!(found.is_rows());
    assert_eq!(found.rows_num(), 1);
    assert_eq!(found.single_row::<User>().unwrap(), ada);
    let (id, name, _): (i64, &str, CqlTimestamp) = found.single_row().unwrap();
    assert_eq!((id, name), (7, "ada"));
    assert_eq!(found.columns().unwrap().get_by_name("name").unwrap().0, 1);
    assert_eq!(found.first::<Row>().unwrap().unwrap().columns.len(), 3);
    assert!(found.node().is_some());
    assert!(found.coordinator().is_some());
    assert!(found.next_page().is_none());

    let wrong = found.single_row::<(i64,)>().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Rows);
}

#[tokio::test]
async fn helpers_say_how_many_rows_they_expected() {
    let Some(client) = client_with_table("numbers", "k int, n int, PRIMARY KEY (k, n)").await else { return };
    for n in 0..3 {
        client.execute("INSERT INTO numbers (k, n) VALUES (1, ?)", (n,)).await.unwrap();
    }
    let select = "SELECT n FROM numbers WHERE k = ?";
    let (none, three) =
        (client.execute(select, (0,)).await.unwrap(), client.execute(select, (1,)).await.unwrap());
    assert_eq!(none.maybe_row::<(i32,)>().unwrap(), None);
    assert_eq!(none.first::<(i32,)>().unwrap(), None);
    assert_eq!(three.first::<(i32,)>().unwrap(), Some((0,)));
    let all: Vec<i32> = three.rows::<(i32,)>().unwrap().map(|row| row.unwrap().0).collect();
    assert_eq!(all, [0, 1, 2]);
    assert_eq!(
        none.single_row::<(i32,)>().unwrap_err().to_string(),
        "one row was expected, and there is none"
    );
    assert_eq!(
        three.maybe_row::<(i32,)>().unwrap_err().to_string(),
        "at most one row was expected, and there are 3"
    );
    let write = client.execute("DELETE FROM numbers WHERE k = ?", (9,)).await.unwrap();
    assert!(!write.is_rows());
    assert_eq!(write.rows::<(i32,)>().err().unwrap().kind(), ErrorKind::Rows);
    assert!(write.applied().is_err());
}

#[tokio::test]
async fn a_lightweight_transaction_says_whether_it_was_applied() {
    let Some(client) = client_with_table("accounts", "id int PRIMARY KEY, owner text").await else { return };
    let insert = Statement::new("INSERT INTO accounts (id, owner) VALUES (?, ?) IF NOT EXISTS")
        .serial_consistency(SerialConsistency::LocalSerial);
    assert!(client.execute(insert.clone(), (1, "ada")).await.unwrap().applied().unwrap());
    let second = client.execute(insert, (1, "bob")).await.unwrap();
    assert!(!second.applied().unwrap());
    // The row that stood in the way comes back.
    let (_, _, owner): (bool, i32, String) = second.single_row().unwrap();
    assert_eq!(owner, "ada");
}

#[tokio::test]
async fn a_result_is_read_to_its_end_or_page_by_page() {
    let Some(client) = client_with_table("pages", "k int, n int, PRIMARY KEY (k, n)").await else { return };
    let insert = "INSERT INTO pages (k, n) VALUES (1, ?)";
    for n in 0..25 {
        client.execute(insert, (n,)).await.unwrap();
    }
    let select = || Statement::new("SELECT n FROM pages WHERE k = ?").page_size(10);
    assert_eq!(client.execute(select(), (1,)).await.unwrap().rows_num(), 25);

    let mut sizes = Vec::new();
    let mut next = None;
    loop {
        let page = client.execute_page(select(), (1,), next).await.unwrap();
        sizes.push(page.rows_num());
        next = page.next_page().cloned();
        if next.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);

    let error = client.execute(select().max_pages(2), (1,)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyPages);
    assert!(error.to_string().contains("`execute_page`"), "{error}");
    assert_eq!(client.query("SELECT n FROM pages").await.unwrap().rows_num(), 25);
}

#[tokio::test]
async fn a_batch_writes_all_its_members() {
    let Some(client) = client_with_table("batched", "k int PRIMARY KEY, v text").await else { return };
    let insert = "INSERT INTO batched (k, v) VALUES (?, ?)";
    let batch = Batch::logged()
        .with(insert, (1, "one"))
        .with(insert, (2, None::<&str>))
        .with("UPDATE batched SET v = 'three' WHERE k = 3", ());
    client.batch(batch).await.unwrap();
    let rows = client.query("SELECT k, v FROM batched").await.unwrap();
    let mut rows: Vec<(i32, Option<String>)> = rows.rows().unwrap().map(Result::unwrap).collect();
    rows.sort();
    assert_eq!(rows, [(1, Some("one".into())), (2, None), (3, Some("three".into()))]);

    let empty = client.batch(Batch::unlogged()).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Values);
}

#[tokio::test]
async fn counters_count_in_single_statements_and_in_batches() {
    let Some(client) = client_with_table("clicks", "page text PRIMARY KEY, n counter").await else { return };
    let click = "UPDATE clicks SET n = n + ? WHERE page = ?";
    client.execute(click, (Counter(2), "home")).await.unwrap();
    client.batch(Batch::counter().with(click, (Counter(3), "home"))).await.unwrap();
    let found = client.execute("SELECT n FROM clicks WHERE page = ?", ("home",)).await.unwrap();
    assert_eq!(found.single_row::<(Counter,)>().unwrap().0.0, 5);
}

#[tokio::test]
async fn options_of_a_statement_reach_the_server() {
    let Some(client) = client_with_table("options", "k int PRIMARY KEY, v int").await else { return };
    let write = Statement::new("INSERT INTO options (k, v) VALUES (?, ?)")
        .consistency(Consistency::One)
        .timestamp(42)
        .tracing(true)
        .timeout(Duration::from_secs(10));
    let written = client.execute(write, (1, 1)).await.unwrap();
    assert_eq!(written.tracing_ids().len(), 1);
    let found = client.query("SELECT writetime(v) FROM options WHERE k = 1").await.unwrap();
    assert_eq!(found.single_row::<(i64,)>().unwrap().0, 42);
    // A consistency level that one node cannot serve shows that the level is sent.
    let error = client
        .execute(Statement::new("SELECT v FROM options WHERE k = ?").consistency(Consistency::Three), (1,))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_write_gets_its_timestamp_here_unless_that_is_switched_off() {
    let Some(client) = client_with_table("stamped", "k int PRIMARY KEY, v int, l list<int>").await else {
        return;
    };
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let written = async |client: &Client<Cassandra>, cql: &str, column: &str| {
        client.execute(cql, ()).await.unwrap();
        let found =
            client.query(format!("SELECT writetime({column}) FROM stamped WHERE k = 1")).await.unwrap();
        found.single_row::<(i64,)>().unwrap().0
    };
    let before = now();
    let at = written(&client, "INSERT INTO stamped (k, v) VALUES (1, 1)", "v").await;
    assert!((before..=now()).contains(&at));

    // The client's clock is one that never stands still: two writes never share a timestamp.
    let again = written(&client, "INSERT INTO stamped (k, v) VALUES (1, 2)", "v").await;
    assert!(again > at);
    let off = client.clone().client_timestamps(false);
    let later = written(&off, "INSERT INTO stamped (k, v) VALUES (1, 3)", "v").await;
    assert!(later > again);
}

#[tokio::test]
async fn a_box_client_does_the_same_without_type_parameters() {
    let Some(client) = client_with_table("boxed", "k int PRIMARY KEY").await else { return };
    let boxed: BoxClient = client.boxed();
    boxed.execute("INSERT INTO boxed (k) VALUES (?)", (1,)).await.unwrap();
    let clone = boxed.clone();
    let found = tokio::spawn(async move { clone.query("SELECT k FROM boxed").await }).await.unwrap();
    assert_eq!(found.unwrap().rows_num(), 1);
}

#[tokio::test]
async fn a_session_of_the_callers_own_can_be_used() {
    let Some(points) = shared() else { return };
    let session = SessionBuilder::new().known_nodes(points).build().await.unwrap();
    let session = Arc::new(session);
    let client = Client::new(Cassandra::from_session(Arc::clone(&session)));
    let found = client.execute("SELECT key FROM system.local WHERE key = ?", ("local",)).await.unwrap();
    assert_eq!(found.single_row::<(String,)>().unwrap().0, "local");
    assert!(Arc::ptr_eq(client.stack().session(), &session));
}

#[tokio::test]
async fn a_stack_can_be_called_without_a_client() {
    let Some(mut cassandra) = session().await else { return };
    let request = Request::text("SELECT key FROM system.local").with_consistency(Consistency::One);
    assert_eq!(request.kind(), Kind::Read);
    let response = cassandra.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(response.single_row::<(String,)>().unwrap().0, "local");

    let prepare = Request::prepare("SELECT key FROM system.local WHERE key = ?");
    let response = cassandra.ready().await.unwrap().call(prepare).await.unwrap();
    assert_eq!(response.prepared().unwrap().columns().len(), 1);
}

/// A server's statement ids change with the schema; nobody should notice.
#[tokio::test]
async fn statements_survive_a_change_of_the_schema() {
    let Some(client) = client_with_table("changing", "k int PRIMARY KEY, v int").await else { return };
    let select = "SELECT * FROM changing WHERE k = ?";
    client.execute("INSERT INTO changing (k, v) VALUES (?, ?)", (1, 2)).await.unwrap();
    assert_eq!(client.execute(select, (1,)).await.unwrap().columns().unwrap().len(), 2);
    client.query("ALTER TABLE changing ADD w int").await.unwrap();
    assert_eq!(client.execute(select, (1,)).await.unwrap().columns().unwrap().len(), 3);
    client.query("DROP TABLE changing").await.unwrap();
    assert_eq!(client.execute(select, (1,)).await.unwrap_err().kind(), ErrorKind::Invalid);
    client.query("CREATE TABLE changing (k int PRIMARY KEY, other text)").await.unwrap();
    let found = client.execute(select, (1,)).await.unwrap();
    assert_eq!(found.columns().unwrap().get_by_index(1).unwrap().name(), "other");
}

#[tokio::test]
async fn a_schema_change_can_be_prepared_and_waits_for_agreement_all_the_same() {
    let Some(client) = client_with_table("prepared_ddl", "k int PRIMARY KEY").await else { return };
    let add = client.prepare("ALTER TABLE prepared_ddl ADD v int").await.unwrap();
    assert_eq!(add.kind(), Kind::Schema);
    client.execute(&add, ()).await.unwrap();
    // The driver knows the column at once.
    let state = client.stack().session().get_cluster_state();
    assert!(state.get_keyspace("it").unwrap().tables["prepared_ddl"].columns.contains_key("v"));
}

/// A table that is made anew with other types, here and by somebody else.
#[tokio::test]
async fn values_are_checked_against_the_types_of_today() {
    let Some(client) = client_with_table("retyped", "k int PRIMARY KEY, v int").await else { return };
    let insert = "INSERT INTO retyped (k, v) VALUES (1, ?)";
    client.execute(insert, (1,)).await.unwrap();
    create_table(&client, "retyped", "k int PRIMARY KEY, v text").await;
    client.execute(insert, ("one",)).await.unwrap();

    let other = Client::new(session().await.unwrap());
    create_table(&other, "retyped", "k int PRIMARY KEY, v int").await;
    // A mistake costs no preparation, as long as what is known is fresh.
    assert_eq!(client.execute(insert, (1,)).await.unwrap_err().attempts().unwrap().len(), 0);
    tokio::time::sleep(Duration::from_secs(11)).await;
    client.execute(insert, (1,)).await.unwrap();
}

#[tokio::test]
async fn batches_survive_a_change_of_the_schema() {
    let Some(client) = client_with_table("changing_batch", "k int PRIMARY KEY, v int").await else { return };
    let insert = "INSERT INTO changing_batch (k, v) VALUES (?, ?)";
    let write = |k: i32| Batch::unlogged().with(insert, (k, k)).with(insert, (k + 1, k));
    client.batch(write(1)).await.unwrap();
    client.query("ALTER TABLE changing_batch ADD w int").await.unwrap();
    client.batch(write(3)).await.unwrap();
    client.query("DROP TABLE changing_batch").await.unwrap();
    assert_eq!(client.batch(write(5)).await.unwrap_err().kind(), ErrorKind::Invalid);
    client.query("CREATE TABLE changing_batch (k int PRIMARY KEY, v int)").await.unwrap();
    client.batch(write(7)).await.unwrap();
    assert_eq!(client.query("SELECT k FROM changing_batch").await.unwrap().rows_num(), 2);
}

#[tokio::test]
async fn a_counter_batch_with_other_members_is_refused_by_the_server_and_not_repeated() {
    let Some(client) = client_with_table("mixed_counter", "k int PRIMARY KEY, c counter").await else {
        return;
    };
    create_table(&client, "mixed_other", "k int PRIMARY KEY, v int").await;
    let mixed = Batch::counter()
        .with("UPDATE mixed_counter SET c = c + ? WHERE k = 1", (Counter(1),))
        .with("INSERT INTO mixed_other (k, v) VALUES (?, ?)", (1, 1));
    let error = client.batch(mixed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(!error.is_retryable() && !error.may_have_been_applied());
    assert_eq!(client.query("SELECT k FROM mixed_other").await.unwrap().rows_num(), 0);
}

/// A session belongs to the runtime that made it, and can be used from another.
#[test]
fn a_client_is_used_from_several_runtimes() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (home, away) = (tokio::runtime::Runtime::new().unwrap(), runtime());
    let Some(client) = home.block_on(client_with_table("runtimes", "k int PRIMARY KEY")) else { return };
    away.block_on(async {
        client.execute("INSERT INTO runtimes (k) VALUES (?)", (1,)).await.unwrap();
    });
    // A preparation that was begun on a runtime that is gone does not keep later callers waiting.
    drop(away);
    home.block_on(async {
        assert_eq!(client.execute("SELECT k FROM runtimes WHERE k = ?", (1,)).await.unwrap().rows_num(), 1);
    });
}

#[tokio::test]
async fn statements_are_kept_by_text_and_keyspace() {
    let Some(client) = client_with_table("here", "k int PRIMARY KEY").await else { return };
    client.execute("INSERT INTO here (k) VALUES (?)", (1,)).await.unwrap();
    crate::cluster::create_keyspace(&client, "elsewhere", 1).await;
    client.query("CREATE TABLE IF NOT EXISTS elsewhere.here (k int PRIMARY KEY)").await.unwrap();
    let count = "SELECT k FROM here";
    assert_eq!(client.execute(count, ()).await.unwrap().rows_num(), 1);
    client.stack().session().use_keyspace("elsewhere", true).await.unwrap();
    assert_eq!(client.execute(count, ()).await.unwrap().rows_num(), 0);
}
