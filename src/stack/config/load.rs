//! A configuration from a text, a file, and the environment.

use std::{env, fs, path::Path};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Preset, StackConfig};
use crate::error::{Error, ErrorKind};

impl StackConfig {
    /// Reads a configuration in TOML. What it does not set is the [preset's](Self#presets).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], which names the line, the setting, and what is allowed. Only what can be told of a setting by itself
    /// is checked here; whether settings fit together is found by [`check`](Self::check), which a stack calls when it is made.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Self::from_sources("the configuration", text, "", [])
    }

    /// Reads the file at `path`, if one is given, and then the environment variables that begin with `prefix`, which count more.
    ///
    /// A variable is named by the prefix, the section, two underscores and the setting, in capitals. Its value is written as in TOML;
    /// quotes can be left out. A password is taken as it is.
    ///
    /// ```text
    /// CASSANDRA_CONNECTION__CONTACT_POINTS=10.0.0.1,10.0.0.2
    /// CASSANDRA_CONNECTION__PASSWORD=correct-horse
    /// CASSANDRA_RETRY__MAX_ATTEMPTS=4
    /// CASSANDRA_DEADLINE__LIMIT=1500ms
    /// CASSANDRA_PRESET=interactive
    /// ```
    ///
    /// ```no_run
    /// use tower_cassandra::stack::StackConfig;
    ///
    /// let config = StackConfig::load(Some("service.toml".as_ref()), "CASSANDRA_")?;
    /// # Ok::<_, tower_cassandra::Error>(())
    /// ```
    ///
    /// Variables with the prefix and without two underscores, such as `CASSANDRA_HOME`, belong to others and are left alone, but for the
    /// preset.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], which names the file and line or the variable, the setting, and what is allowed.
    pub fn load(path: Option<&Path>, prefix: &str) -> Result<Self, Error> {
        let (name, text) = match path {
            None => ("the configuration".to_owned(), String::new()),
            Some(path) => {
                let name = path.display().to_string();
                let text = fs::read_to_string(path).map_err(|error| {
                    problem(format!("cannot read the configuration file {name}: {error}"))
                })?;
                (name, text)
            }
        };
        let mut variables = Vec::new();
        for (key, value) in env::vars_os() {
            let Ok(key) = key.into_string() else { continue };
            if setting_of(&key, prefix).is_some() {
                let value = value
                    .into_string()
                    .map_err(|_| problem(format!("the environment variable {key} is not UTF-8")))?;
                variables.push((key, value));
            }
        }
        Self::from_sources(&name, &text, prefix, variables)
    }

    /// The same of a text and of variables that somebody else has read: `name` tells where the text is from.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_sources(
        name: &str,
        text: &str,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        // By itself first: only the text has lines to name.
        let _: Self = toml::from_str(text).map_err(|error| in_text(name, text, error))?;
        let mut table: Table = toml::from_str(text).map_err(|error| in_text(name, text, error))?;
        let mut variables: Vec<_> = variables.into_iter().collect();
        variables.sort_unstable();
        for (variable, value) in variables {
            if let Some(path) = setting_of(&variable, prefix) {
                let one = read_value(&path, &value).map_err(|error| in_variable(&variable, error))?;
                merge(&mut table, one);
            }
        }
        let preset = table.get("preset").cloned().map(Preset::deserialize).transpose();
        let preset = preset.map_err(|error| in_text(name, text, error))?.unwrap_or_default();
        let defaults = Table::try_from(Self::of(preset));
        let mut all = defaults.map_err(|error| problem(format!("the preset cannot be used: {error}")))?;
        merge(&mut all, table);
        all.try_into().map_err(|error| in_text(name, text, error))
    }

    /// Changes one setting, named as `section.setting`; the value is written as in a variable of the environment.
    ///
    /// ```
    /// use tower_cassandra::stack::StackConfig;
    ///
    /// let mut config = StackConfig::default();
    /// config.set("rate.per_second", "250")?;
    /// config.set("breaker.mode", "forced_open")?;
    /// assert_eq!(config.rate.per_second, 250);
    /// # Ok::<_, tower_cassandra::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], which names the setting and what is allowed; nothing has changed then.
    pub fn set(&mut self, setting: &str, value: &str) -> Result<(), Error> {
        let Some((section, name)) = setting.split_once('.') else {
            return Err(problem(format!(
                "`{setting}` is no setting: name it with its section, as `retry.max_attempts`"
            )));
        };
        let one = read_value(&[section.to_owned(), name.to_owned()], value)
            .map_err(|error| problem(said(error)))?;
        let mut all = Table::try_from(&*self)
            .map_err(|error| problem(format!("the configuration cannot be changed: {error}")))?;
        merge(&mut all, one);
        let mut changed: Self = all.try_into().map_err(|error| problem(said(error)))?;
        // It is not among what was written.
        if changed.connection.password.is_none() {
            changed.connection.password.clone_from(&self.connection.password);
        }
        *self = changed;
        Ok(())
    }

    /// The whole configuration in TOML, defaults included, without the password.
    ///
    /// # Errors
    ///
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self)
            .map_err(|error| problem(format!("the configuration cannot be written: {error}")))
    }
}

fn problem(message: String) -> Error {
    Error::caller(ErrorKind::Config, message)
}

/// The setting that a variable is for, or `None` if it is not for us.
fn setting_of(variable: &str, prefix: &str) -> Option<Vec<String>> {
    let name = variable.strip_prefix(prefix)?.to_ascii_lowercase();
    match name.split_once("__") {
        Some((section, setting)) => Some(vec![section.to_owned(), setting.to_owned()]),
        None => (name == "preset").then(|| vec![name]),
    }
}

/// A value as a configuration of this one setting.
fn read_value(path: &[String], value: &str) -> Result<Table, toml::de::Error> {
    let as_table = |value: Value| {
        let (last, sections) = path.split_last()?;
        let leaf = Table::from_iter([(last.clone(), value)]);
        Some(
            sections
                .iter()
                .rev()
                .fold(leaf, |inner, section| Table::from_iter([(section.clone(), Value::Table(inner))])),
        )
    };
    let check = |table: &Table| table.clone().try_into::<StackConfig>().map(drop);
    // `12` may be a number, and may be somebody's password. A table would be several settings.
    let typed = toml::from_str::<Table>(&format!("value = {value}")).ok();
    let typed = typed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    let typed = typed.filter(|value| !value.is_table() && path != ["connection", "password"]);
    let text = as_table(Value::String(value.to_owned())).unwrap_or_default();
    let Some(typed) = typed.and_then(as_table) else {
        return check(&text).map(|()| text);
    };
    match check(&typed) {
        Ok(()) => Ok(typed),
        Err(_) if check(&text).is_ok() => Ok(text),
        Err(error) => Err(error),
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// In one line: where, which setting, and what is wrong with it.
fn in_text(name: &str, text: &str, error: toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before.map(|before| 1 + before.matches('\n').count()) {
        Some(line) => problem(format!("{name}, line {line}: {}", said(error))),
        None => problem(format!("{name}: {}", said(error))),
    }
}

fn in_variable(variable: &str, error: toml::de::Error) -> Error {
    problem(format!("the environment variable {variable}: {}", said(error)))
}

fn said(mut error: toml::de::Error) -> String {
    // Without its input it tells the setting instead of drawing the line.
    error.set_input(None);
    let message = error.message().trim().to_owned();
    let all = error.to_string();
    let path = all.rsplit_once("in `").and_then(|(_, path)| path.trim_end().strip_suffix('`'));
    match path {
        Some(path) => format!("`{path}`: {message}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(text: &str) -> String {
        let error = StackConfig::from_toml(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    fn with(variables: &[(&str, &str)]) -> Result<StackConfig, Error> {
        let text = "[retry]\nmax_attempts = 2\n\n[deadline]\nlimit = \"1s\"\n";
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        StackConfig::from_sources("service.toml", text, "CASSANDRA_", variables)
    }

    #[test]
    fn an_empty_text_is_the_default_configuration() {
        assert_eq!(StackConfig::from_toml("").unwrap(), StackConfig::default());
    }

    #[test]
    fn every_preset_survives_being_written_and_read() {
        for mut config in [StackConfig::default(), StackConfig::interactive(), StackConfig::batch()] {
            config.connection.contact_points = vec!["10.0.0.1".to_owned()];
            config.hedge.fixed_delay = Some(Duration::from_millis(30));
            config.rate.burst = Some(7);
            let text = config.to_toml().unwrap();
            assert_eq!(StackConfig::from_toml(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn what_is_not_set_is_the_presets() {
        let config = StackConfig::from_toml("preset = \"batch\"\n[retry]\nmax_attempts = 9").unwrap();
        let mut expected = StackConfig::batch();
        expected.retry.max_attempts = 9;
        assert_eq!(config, expected);
        assert!(refused("preset = \"huge\"").contains("expected one of `standard`, `interactive`, `batch`"));
    }

    #[test]
    fn an_error_names_the_line_the_setting_and_what_is_allowed() {
        assert_eq!(
            refused("[retry]\n\nmax_attempts = \"four\""),
            "the configuration, line 3: `retry.max_attempts`: invalid type: string \"four\", expected u32"
        );
        assert_eq!(
            refused("[deadline]\nlimit = \"2 parsecs\""),
            "the configuration, line 2: `deadline.limit`: \"2 parsecs\" is no duration: write a whole number and its \
             unit (us, ms, s, m, h or d): \"300ms\", \"2s\", \"1m\""
        );
        assert!(refused("[deadline]\nlimit = 2").contains(
            "line 2: `deadline.limit`: invalid type: integer `2`, expected a whole number and its unit"
        ));
        let unknown = refused("[retry]\nmax_atempts = 4");
        assert!(unknown.contains("line 2: `retry"), "{unknown}");
        assert!(
            unknown.contains("unknown field `max_atempts`, expected one of `enabled`, `max_attempts`"),
            "{unknown}"
        );
        assert!(refused("[retri]\n").contains("line 1: "));
        assert!(refused("[retry").starts_with("the configuration, line 1: "));
        let level = refused("[connection]\nconsistency = \"MOST\"");
        assert!(
            level.contains("`connection.consistency`: \"MOST\" is none of LOCAL_QUORUM, LOCAL_ONE, "),
            "{level}"
        );
        let mode = refused("[breaker]\nmode = \"ajar\"");
        assert!(
            mode.contains("\"ajar\" is none of normal, metrics_only, forced_open, forced_closed"),
            "{mode}"
        );
    }

    #[test]
    fn the_environment_counts_more_than_the_file() {
        let config = with(&[
            ("CASSANDRA_RETRY__MAX_ATTEMPTS", "4"),
            ("CASSANDRA_CONNECTION__CONTACT_POINTS", "10.0.0.1, 10.0.0.2"),
            ("CASSANDRA_CONNECTION__PASSWORD", "12345"),
            ("CASSANDRA_ATTEMPT_TIMEOUT__LIMIT", "250ms"),
            ("CASSANDRA_HEDGE__ENABLED", "false"),
            ("CASSANDRA_HOME", "/opt/cassandra"),
            ("OTHER_RETRY__MAX_ATTEMPTS", "9"),
        ])
        .unwrap();
        let mut expected = StackConfig::default();
        expected.deadline.limit = Duration::from_secs(1);
        expected.retry.max_attempts = 4;
        expected.connection.contact_points = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        expected.connection.password = Some("12345".into());
        expected.attempt_timeout.limit = Duration::from_millis(250);
        expected.hedge.enabled = false;
        assert_eq!(config, expected);
        let quoted = with(&[("CASSANDRA_CONNECTION__CONTACT_POINTS", "[\"10.0.0.1\"]")]).unwrap();
        assert_eq!(quoted.connection.contact_points, ["10.0.0.1"]);
        let preset = with(&[("CASSANDRA_PRESET", "batch")]).unwrap();
        assert_eq!((preset.retry.max_attempts, preset.hedge.enabled), (2, false));
    }

    #[test]
    fn a_password_of_the_environment_is_taken_as_it_is() {
        for password in ["12345", "\"quoted\"", "[a]", "true", "'", "{ a = 1 }", "a # b", "4\nb = 5"] {
            let config = with(&[("CASSANDRA_CONNECTION__PASSWORD", password)]).unwrap();
            assert_eq!(config.connection.password, Some(password.into()), "{password}");
        }
        let several = with(&[("CASSANDRA_RETRY__MAX_ATTEMPTS", "4\nb = 5")]);
        assert!(several.unwrap_err().to_string().contains("CASSANDRA_RETRY__MAX_ATTEMPTS"));
    }

    #[test]
    fn an_error_names_the_variable() {
        let wrong = with(&[("CASSANDRA_RETRY__MAX_ATTEMPTS", "four")]).unwrap_err().to_string();
        assert_eq!(
            wrong,
            "the environment variable CASSANDRA_RETRY__MAX_ATTEMPTS: `retry.max_attempts`: invalid type: string \
             \"four\", expected u32"
        );
        let unknown = with(&[("CASSANDRA_RETRY__ATTEMPTS", "4")]).unwrap_err().to_string();
        assert!(unknown.contains("CASSANDRA_RETRY__ATTEMPTS: `retry"), "{unknown}");
        assert!(unknown.contains("expected one of `enabled`, `max_attempts`"), "{unknown}");
    }

    #[test]
    fn a_password_is_neither_printed_nor_written_nor_part_of_an_error() {
        let text = "[connection]\nuser = \"ada\"\npassword = \"hunter2\"";
        let config = StackConfig::from_toml(text).unwrap();
        assert_eq!(config.connection.password, Some("hunter2".into()));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!config.to_toml().unwrap().contains("hunter2"));
        let error = refused("[connection]\npassword = 314159");
        assert!(!error.contains("314159"), "{error}");
        assert!(error.contains("put it in quotes"), "{error}");
        // Numbers that fit into 64 bits, into 128, and nowhere; and what is no TOML at all.
        for number in [
            "9999999999999999999",
            "314159265358979323846264338327950288",
            "-99999999999999999999",
            "31.4159",
        ] {
            let error = refused(&format!("[connection]\npassword = {number}"));
            assert!(!error.contains(number), "{error}");
            assert!(error.contains("connection.password") && error.contains("put it in quotes"), "{error}");
        }
        for wrong in [
            "hunter2",
            "\"hunter2",
            "'hunter2",
            "hunter2\npassword = hunter2",
            "[\"hunter2\"]",
            "{ hunter2 = 1 }",
        ] {
            let error = refused(&format!("[connection]\npassword = {wrong}"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn one_setting_is_changed_by_its_name() {
        let mut config = StackConfig::interactive();
        config.connection.password = Some("hunter2".into());
        let mut expected = config.clone();
        config.set("deadline.limit", "3s").unwrap();
        config.set("rate.burst", "9").unwrap();
        expected.deadline.limit = Duration::from_secs(3);
        expected.rate.burst = Some(9);
        assert_eq!(config, expected);
        for (setting, value) in
            [("deadline.limit", "3"), ("deadline.limits", "3s"), ("deadline", "3s"), ("a.b", "c")]
        {
            let error = config.set(setting, value).unwrap_err();
            assert!(error.to_string().contains("deadline") || setting == "a.b", "{error}");
            assert_eq!(config, expected);
        }
    }

    #[test]
    fn a_limit_that_is_none_is_written_and_read() {
        let mut config = StackConfig::default();
        config.deadline.schema = Duration::MAX;
        config.attempt_timeout.schema = Duration::new(u64::MAX, 999_999_000);
        config.set("rate.per_second", "250").unwrap();
        let read = StackConfig::from_toml(&config.to_toml().unwrap()).unwrap();
        // Nobody waits for the last microsecond of it.
        assert_eq!(read.deadline.schema.as_secs(), u64::MAX);
        assert_eq!(read.attempt_timeout.schema, config.attempt_timeout.schema);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = StackConfig::load(Some("/no/such/file.toml".as_ref()), "CASSANDRA_").unwrap_err();
        assert!(error.to_string().starts_with("cannot read the configuration file /no/such/file.toml: "));
    }
}
