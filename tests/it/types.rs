//! Values of every type of CQL, there and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
};

use scylla::{
    DeserializeValue, SerializeValue,
    deserialize::value::DeserializeValue as Deserialize,
    serialize::value::SerializeValue as Serialize,
    value::{
        CqlDate, CqlDecimal, CqlDuration, CqlTime, CqlTimestamp, CqlTimeuuid, CqlVarint, MaybeUnset, Unset,
    },
};
use tower_cassandra::{Cassandra, Client};
use uuid::Uuid;

use crate::cluster::{client_with_table, create_table};

/// Writes a value into a column of this type, and reads it again.
async fn returns<T>(client: &Client<Cassandra>, cql_type: &str, value: T)
where
    T: Serialize + for<'a> Deserialize<'a, 'a> + PartialEq + Debug + Clone + Send + Sync,
{
    create_table(client, "types", &format!("k int PRIMARY KEY, v {cql_type}")).await;
    client.execute("INSERT INTO types (k, v) VALUES (1, ?)", (value.clone(),)).await.unwrap();
    let found = client.execute("SELECT v FROM types WHERE k = ?", (1,)).await.unwrap();
    assert_eq!(found.single_row::<(T,)>().unwrap().0, value, "{cql_type}");
}

#[derive(Clone, Debug, PartialEq, SerializeValue, DeserializeValue)]
struct Address {
    street: String,
    number: Option<i32>,
}

#[tokio::test]
async fn every_type_comes_back_as_it_went() {
    let Some(client) = client_with_table("types", "k int PRIMARY KEY").await else { return };
    let client = &client;
    returns(client, "ascii", "plain".to_owned()).await;
    returns(client, "text", "ünï \u{1F600} ''".to_owned()).await;
    returns(client, "text", String::new()).await;
    returns(client, "tinyint", i8::MIN).await;
    returns(client, "smallint", i16::MAX).await;
    returns(client, "int", i32::MIN).await;
    returns(client, "bigint", i64::MAX).await;
    returns(client, "varint", CqlVarint::from_signed_bytes_be(vec![0x7F; 40])).await;
    returns(client, "decimal", CqlDecimal::from_signed_be_bytes_and_exponent(vec![1, 2, 3], 7)).await;
    returns(client, "float", f32::MIN_POSITIVE).await;
    returns(client, "double", f64::MAX).await;
    returns(client, "boolean", true).await;
    returns(client, "blob", (0..=255).collect::<Vec<u8>>()).await;
    returns(client, "blob", Vec::<u8>::new()).await;
    returns(client, "inet", "::1".parse::<IpAddr>().unwrap()).await;
    returns(client, "inet", "127.0.0.1".parse::<IpAddr>().unwrap()).await;
    returns(client, "uuid", Uuid::from_u128(u128::MAX)).await;
    let timeuuid: CqlTimeuuid = "8e14e760-7fa8-11eb-bc66-000000000001".parse().unwrap();
    returns(client, "timeuuid", timeuuid).await;
    returns(client, "timestamp", CqlTimestamp(-1)).await;
    returns(client, "date", CqlDate(u32::MAX / 2)).await;
    returns(client, "time", CqlTime(86_399_999_999_999)).await;
    returns(client, "duration", CqlDuration { months: 1, days: 2, nanoseconds: 3 }).await;
}

#[tokio::test]
async fn collections_and_user_defined_types_come_back_as_they_went() {
    let Some(client) = client_with_table("types_of_more", "k int PRIMARY KEY").await else { return };
    client.query("CREATE TYPE IF NOT EXISTS address (street text, number int)").await.unwrap();
    let address = || Address { street: "Main".to_owned(), number: Some(7) };
    let of = async |column: &str, cql_type: &str| {
        create_table(&client, "more", &format!("k int PRIMARY KEY, {column} {cql_type}")).await;
    };
    of("v", "list<text>").await;
    let list = vec!["a".to_owned(), "a".to_owned()];
    client.execute("INSERT INTO more (k, v) VALUES (1, ?)", (list.clone(),)).await.unwrap();
    let found = client.query("SELECT v FROM more").await.unwrap();
    assert_eq!(found.single_row::<(Vec<String>,)>().unwrap().0, list);

    of("v", "set<int>").await;
    let set = BTreeSet::from([3, 1, 2]);
    client.execute("INSERT INTO more (k, v) VALUES (1, ?)", (set.clone(),)).await.unwrap();
    let found = client.query("SELECT v FROM more").await.unwrap();
    assert_eq!(found.single_row::<(BTreeSet<i32>,)>().unwrap().0, set);

    of("v", "map<text, frozen<list<int>>>").await;
    let map = BTreeMap::from([("one".to_owned(), vec![1]), ("none".to_owned(), vec![])]);
    client.execute("INSERT INTO more (k, v) VALUES (1, ?)", (map.clone(),)).await.unwrap();
    let found = client.query("SELECT v FROM more").await.unwrap();
    assert_eq!(found.single_row::<(BTreeMap<String, Vec<i32>>,)>().unwrap().0, map);

    of("v", "tuple<int, text>").await;
    client.execute("INSERT INTO more (k, v) VALUES (1, ?)", ((1, "one"),)).await.unwrap();
    let found = client.query("SELECT v FROM more").await.unwrap();
    assert_eq!(found.single_row::<((i32, String),)>().unwrap().0, (1, "one".to_owned()));

    of("v", "vector<float, 3>").await;
    client.execute("INSERT INTO more (k, v) VALUES (1, ?)", (vec![1.0_f32, 2.0, 3.0],)).await.unwrap();
    let found = client.query("SELECT v FROM more").await.unwrap();
    assert_eq!(found.single_row::<(Vec<f32>,)>().unwrap().0, [1.0, 2.0, 3.0]);

    of("v", "frozen<address>").await;
    client.execute("INSERT INTO more (k, v) VALUES (1, ?)", (address(),)).await.unwrap();
    let found = client.query("SELECT v FROM more").await.unwrap();
    assert_eq!(found.single_row::<(Address,)>().unwrap().0, address());
}

/// Null deletes, and unset leaves alone.
#[tokio::test]
async fn null_and_unset_are_told_apart() {
    let Some(client) = client_with_table("unset", "k int PRIMARY KEY, v int").await else { return };
    let insert = "INSERT INTO unset (k, v) VALUES (1, ?)";
    let value = async || {
        let found = client.query("SELECT v FROM unset WHERE k = 1").await.unwrap();
        found.single_row::<(Option<i32>,)>().unwrap().0
    };
    client.execute(insert, (MaybeUnset::Set(7),)).await.unwrap();
    client.execute(insert, (Unset,)).await.unwrap();
    assert_eq!(value().await, Some(7));
    client.execute(insert, (None::<i32>,)).await.unwrap();
    assert_eq!(value().await, None);
}
