//! From nothing to a resilient query: `cargo run --example quickstart`.
//!
//! It uses the cluster that `CASSANDRA_CONTACT_POINTS` names (`host[:port],...`), or starts a node of its own for as
//! long as it runs, which takes Java 17 and, the first time, Maven. Then it writes and reads through a stack of layers,
//! and pauses its node for a moment to show what the layers do about that.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use cassandra_cluster::Cluster;
use tower::ServiceBuilder;
use tower_cassandra::{
    BoxClient, Cassandra, Client, Timeouts,
    layers::{DeadlineLayer, RetryLayer, TimeoutLayer},
};

const INSERT: &str = "INSERT INTO quickstart.users (id, name) VALUES (?, ?)";
const SELECT: &str = "SELECT name FROM quickstart.users WHERE id = ?";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (contact_points, own) = cluster()?;

    // The service at the bottom: a session with the cluster. It makes one attempt for each request.
    let cassandra = Cassandra::builder().contact_points(&contact_points).connect().await?;

    // The stack around it, outermost layer first.
    let client = Client::new(
        ServiceBuilder::new()
            // The whole call, with all its attempts and waits. Schema changes get more time by themselves.
            .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
            // Sends again what can be sent again without harm, within a budget.
            .layer(RetryLayer::default())
            // Each attempt.
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(800))))
            .service(cassandra),
    )
    .boxed();

    println!("\n1. Write and read");
    create_schema(&client).await?;
    for (id, name) in [(1_i64, "Ada"), (2, "Grace")] {
        client.execute(INSERT, (id, name)).await?;
    }
    show(&client, 1).await;
    show(&client, 2).await;

    println!("\n2. A mistake is told at once, and nothing is sent twice");
    if let Err(error) = client.execute(SELECT, ("not a number",)).await {
        println!("   {error}");
    }
    if let Err(error) = client.query("SELECT nothing FROM quickstart.users").await {
        println!("   {error}");
    }

    match own {
        Some(cluster) => outage(&client, &cluster).await?,
        None => println!("\n3. The outage is left out: your own cluster is not paused"),
    }
    println!("\nDone.");
    Ok(())
}

/// The user's cluster, or one node of our own.
fn cluster() -> Result<(Vec<String>, Option<Cluster>), Box<dyn Error>> {
    if let Some(points) = cassandra_cluster::external() {
        println!("Using the cluster at {}", points.join(", "));
        return Ok((points, None));
    }
    println!("Starting a Cassandra node (the first time its jars are downloaded) ...");
    let began = Instant::now();
    let cluster = Cluster::builder().start()?;
    println!("Cassandra {} is up after {:.1?}", cluster.version(), began.elapsed());
    Ok((vec![cluster.address(1).to_string()], Some(cluster)))
}

async fn create_schema(client: &BoxClient) -> Result<(), tower_cassandra::Error> {
    client
        .query(
            "CREATE KEYSPACE IF NOT EXISTS quickstart WITH replication = \
             {'class': 'SimpleStrategy', 'replication_factor': 1}",
        )
        .await?;
    client.query("CREATE TABLE IF NOT EXISTS quickstart.users (id bigint PRIMARY KEY, name text)").await?;
    Ok(())
}

/// The node hangs: its connections stay open, and nothing answers on them. That is the worst way to fail.
async fn outage(client: &BoxClient, cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    println!("\n3. The node hangs");
    cluster.pause(1)?;
    println!("   (paused) Each attempt ends after 800 ms, and the call at its deadline of 2 s:");
    show(client, 1).await;

    println!("   (paused) It goes on again in 1.2 s: the first attempt is lost, the second is answered:");
    let (answered, resumed) = tokio::join!(show(client, 2), async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        cluster.resume(1)
    });
    resumed?;
    println!("   (running) Back to normal:");
    show(client, 1).await;
    if !answered {
        show(client, 2).await;
    }
    Ok(())
}

/// Reads a user and prints what came of it, in one line.
async fn show(client: &BoxClient, id: i64) -> bool {
    let began = Instant::now();
    let outcome = client.execute(SELECT, (id,)).await;
    let took = began.elapsed();
    match outcome.and_then(|answer| Ok((answer.single_row::<(String,)>()?.0, answer.node()))) {
        Ok((name, node)) => {
            let node = node.map_or_else(String::new, |node| format!(", by {node}"));
            println!("   user {id} is {name} (after {took:.1?}{node})");
            true
        }
        Err(error) => {
            println!("   user {id}: no answer after {took:.1?}: {error}");
            false
        }
    }
}
