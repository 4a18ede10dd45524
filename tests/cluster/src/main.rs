//! The command line; in the making.

fn main() -> Result<(), cassandra_cluster::Error> {
    let cluster = cassandra_cluster::Cluster::builder().start()?;
    eprintln!("{:?}", cluster.contact_points());
    Ok(())
}
