//! The stack under test.

use tower_cassandra::{Error, StackConfig, StandardStack};

use crate::clients::Site;

/// Connects as an application would: with the recommended stack as it is.
pub(crate) async fn stack(points: &[String], site: Option<Site>) -> Result<StandardStack, Error> {
    let mut config = StackConfig::default();
    config.connection.contact_points = points.to_vec();
    config.connection.datacenter = site.map(|site| site.local.to_owned());
    StandardStack::connect(config).await
}
