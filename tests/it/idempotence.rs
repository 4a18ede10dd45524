//! What the analysis says about repeating a statement, held against a real server.

use palisade::Idempotence;
use scylla::value::Counter;
use tower_cassandra::{Batch, ErrorKind, Statement, idempotence::Reason};

use crate::cluster::client_with_table;

#[tokio::test]
async fn a_counter_update_that_is_called_idempotent_is_refused_before_it_is_sent() {
    let Some(client) = client_with_table("refused", "k int PRIMARY KEY, c counter").await else { return };
    let click = "UPDATE refused SET c = c + ? WHERE k = ?";
    client.execute(click, (Counter(1), 1)).await.unwrap();
    let wrong = [
        client.execute(Statement::new(click).idempotent(true), (Counter(1), 1)).await,
        client.query(Statement::new("UPDATE refused SET c = c + 1 WHERE k = 1").idempotent(true)).await,
        client.batch(Batch::counter().with(click, (Counter(1), 1)).idempotent(true)).await,
        client.batch(Batch::unlogged().with(click, (Counter(1), 1)).idempotent(true)).await,
    ];
    for outcome in wrong {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotIdempotent);
        assert!(error.to_string().contains("it updates a counter"), "{error}");
        assert!(error.to_string().contains("remove `idempotent(true)`"), "{error}");
        assert_eq!(error.attempts().unwrap().len(), 0, "{error}");
    }
    let found = client.query("SELECT c FROM refused WHERE k = 1").await.unwrap();
    assert_eq!(found.single_row::<(Counter,)>().unwrap().0.0, 1);
}

#[tokio::test]
async fn the_types_of_a_real_table_decide_what_the_text_leaves_open() {
    let definition =
        "k int PRIMARY KEY, v int, l list<int>, s set<int>, m map<int, int>, f frozen<list<int>>";
    let Some(client) = client_with_table("typed", definition).await else { return };
    let of = async |cql: &str| {
        let verdict = client.prepare(cql).await.unwrap().verdict();
        (verdict.idempotence(), verdict.reason())
    };
    let yes = (Idempotence::Yes, None);
    let no = |reason| (Idempotence::No, Some(reason));
    let unknown = |reason| (Idempotence::Unknown, Some(reason));
    for (cql, expected) in [
        ("SELECT v FROM typed WHERE k = ?", yes),
        ("INSERT INTO typed (k, v, s, m, f) VALUES (?, ?, ?, ?, ?)", yes),
        ("UPDATE typed SET s = s + ?, m = m + ? WHERE k = ?", yes),
        ("UPDATE typed SET s = s - ?, m -= ? WHERE k = ?", yes),
        ("UPDATE typed SET m[?] = ? WHERE k = ?", yes),
        ("DELETE m[?], s[?] FROM typed WHERE k = ?", yes),
        ("DELETE FROM typed WHERE k = ?", yes),
        ("UPDATE typed SET l = l + ? WHERE k = ?", no(Reason::ListAppend)),
        ("UPDATE typed SET l = ? + l WHERE k = ?", no(Reason::ListAppend)),
        ("UPDATE typed SET l += ? WHERE k = ?", no(Reason::ListAppend)),
        ("DELETE l[?] FROM typed WHERE k = ?", no(Reason::ListElementDeleted)),
        ("UPDATE typed SET l[?] = ? WHERE k = ?", unknown(Reason::ListElementSet)),
        ("UPDATE typed SET l = l - ? WHERE k = ?", unknown(Reason::ListRemoval)),
        ("UPDATE typed SET l = ? WHERE k = ?", unknown(Reason::WholeList)),
        ("INSERT INTO typed (k, l) VALUES (:k, :l)", unknown(Reason::WholeList)),
        ("UPDATE typed SET v = :v, s = s + :s WHERE k = :k", yes),
        ("INSERT INTO typed (k, v) VALUES (?, ?) IF NOT EXISTS", no(Reason::Condition)),
        (
            "BEGIN BATCH UPDATE typed SET v = ? WHERE k = ?; UPDATE typed SET l += ? WHERE k = ?; APPLY BATCH",
            no(Reason::ListAppend),
        ),
    ] {
        assert_eq!(of(cql).await, expected, "{cql}");
    }
}

/// The fact that the analysis rests on: with one timestamp, a list that is written twice holds everything twice.
/// With the coordinators' timestamps it does not, so that a caller may call it idempotent.
#[tokio::test]
async fn a_list_that_is_written_twice_with_one_timestamp_holds_everything_twice() {
    let Some(client) = client_with_table("lists", "k int PRIMARY KEY, l list<int>").await else { return };
    let elements = async |k: i32| {
        let found = client.execute("SELECT l FROM lists WHERE k = ?", (k,)).await.unwrap();
        found.single_row::<(Vec<i32>,)>().unwrap().0
    };
    let insert = || Statement::new("INSERT INTO lists (k, l) VALUES (?, ?)");
    for _ in 0..2 {
        client.execute(insert().timestamp(1_000), (1, vec![1, 2])).await.unwrap();
        client.execute(insert().idempotent(true), (2, vec![1, 2])).await.unwrap();
    }
    assert_eq!(elements(1).await, [1, 2, 1, 2]);
    assert_eq!(elements(2).await, [1, 2]);
}
