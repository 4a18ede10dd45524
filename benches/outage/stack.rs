//! The stack under test.

use tower_cassandra::{Error, StackConfig, StandardStack};

use crate::clients::Site;

/// Connects as an application would: with the recommended stack as it is.
pub(crate) async fn stack(points: &[String], site: Option<Site>) -> Result<StandardStack, Error> {
    let mut config = StackConfig::default();
    config.connection.contact_points = points.to_vec();
    if let Some(site) = site {
        config.connection.datacenter = Some(site.local.to_owned());
        config.failover.remotes = vec![site.remote.to_owned()];
    }
    StandardStack::connect(config).await
}
