//! The session that a configuration describes.

use std::{fs, time::Duration};

use palisade::ConfigError;

use super::{
    config::{ConnectionConfig, Secret, StackConfig},
    parts::{attempt_lengths, call_lengths},
};
use crate::{
    connect::CassandraBuilder, error::Error, routing::Routing, routing::RoutingBuilder, service::Cassandra,
};

/// Finds what cannot be meant, without looking at files or the network.
pub(super) fn check(config: &StackConfig) -> Result<(), ConfigError> {
    let connection = &config.connection;
    let error = |setting, problem| Err(ConfigError::new(setting, problem).in_section("connection"));
    if connection.password.is_some() && connection.password_file.is_some() {
        return error("password_file", "is set, and `connection.password` too: leave one of them out");
    }
    let has_password = connection.password.is_some() || connection.password_file.is_some();
    if has_password && connection.user.is_none() {
        return error("user", "is missing, and there is a password: say whose it is");
    }
    if connection.user.is_some() && !has_password {
        return error("password", "is missing, and there is a user: set it, or `connection.password_file`");
    }
    if connection.tls_certificate.is_some() != connection.tls_key.is_some() {
        return error("tls_key", "and `connection.tls_certificate` belong together: set both or neither");
    }
    if connection.tls_key.is_some() && connection.tls_ca.is_none() {
        return error("tls_ca", "is missing, and there is a certificate of ours: say whom to trust");
    }
    if cfg!(not(feature = "rustls")) && connection.tls_ca.is_some() {
        return error("tls_ca", "is set, but this program was built without the feature `rustls`");
    }
    routing(config).build().map(drop).map_err(|error| match error.setting() {
        "datacenter" => error.in_section("connection"),
        _ => error.in_section("routing"),
    })
}

fn routing(config: &StackConfig) -> RoutingBuilder {
    let section = &config.routing;
    let mut builder = Routing::builder()
        .max_ejected(section.max_ejected)
        .max_abandoned(section.max_abandoned)
        .stalled_attempts(section.stalled_attempts)
        .stalled_after(section.stalled_after)
        .slow_start(section.slow_start);
    if let Some(rack) = &section.rack {
        builder = builder.rack(rack);
    }
    if let Some(datacenter) = &config.connection.datacenter {
        builder = builder.datacenter(datacenter);
    }
    builder
}

/// The leaf's own limits where those of the layers are shorter, or off.
const REQUEST: Duration = Duration::from_secs(30);
const SCHEMA: Duration = Duration::from_secs(60);

/// A builder with these settings.
pub(super) fn builder(config: &StackConfig) -> Result<CassandraBuilder, Error> {
    let connection = &config.connection;
    let mut builder = Cassandra::builder()
        .routing(routing(config))
        .contact_points(&connection.contact_points)
        .consistency(connection.consistency)
        .serial_consistency(connection.serial_consistency)
        .connect_timeout(connection.connect_timeout)
        .connect_attempts(connection.connect_attempts)
        .prepare_timeout(connection.prepare_timeout)
        .schema_agreement(connection.schema_agreement)
        .prepared_statements(connection.prepared_statements);
    // What the leaf allows by itself must not be less than what the layers do.
    let (call, attempt) = (call_lengths(config), attempt_lengths(config));
    builder = builder
        .request_timeout(REQUEST.max(attempt.usual).max(attempt.prepare))
        .schema_timeout(SCHEMA.max(attempt.schema).max(call.schema));
    if let Some(datacenter) = &connection.datacenter {
        builder = builder.datacenter(datacenter);
    }
    if let Some(keyspace) = &connection.keyspace {
        builder = builder.keyspace(keyspace);
    }
    if let (Some(user), Some(password)) = (&connection.user, password(connection)?) {
        builder = builder.credentials(user, password.reveal());
    }
    if let Some(connections) = connection.connections_per_node {
        builder = builder.connections_per_node(connections);
    }
    tls(connection, builder)
}

fn password(connection: &ConnectionConfig) -> Result<Option<Secret>, ConfigError> {
    let Some(path) = &connection.password_file else {
        return Ok(connection.password.clone());
    };
    let text = fs::read_to_string(path).map_err(|error| {
        let problem = format!("names {}, which cannot be read: {error}", path.display());
        ConfigError::new("password_file", problem).in_section("connection")
    })?;
    Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))))
}

#[cfg(feature = "rustls")]
fn tls(connection: &ConnectionConfig, builder: CassandraBuilder) -> Result<CassandraBuilder, Error> {
    use crate::tls::Tls;

    let tls = match (&connection.tls_ca, &connection.tls_certificate, &connection.tls_key) {
        (Some(ca), Some(certificate), Some(key)) => Tls::mutual(ca, certificate, key)?,
        (Some(ca), ..) => Tls::trusting(ca)?,
        _ => return Ok(builder),
    };
    Ok(builder.tls(tls))
}

#[cfg(not(feature = "rustls"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
fn tls(_: &ConnectionConfig, builder: CassandraBuilder) -> Result<CassandraBuilder, Error> {
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_allows_no_less_than_the_layers() {
        let limits = |text: &str| format!("{:?}", builder(&StackConfig::from_toml(text).unwrap()).unwrap());
        assert!(limits("").contains("request: 30s, schema: 60s"));
        let long = "[deadline]\nenabled = false\nschema = \"5m\"\n[attempt_timeout]\nlimit = \"2m\"";
        assert!(limits(long).contains("request: 120s, schema: 300s"), "{}", limits(long));
    }
}
