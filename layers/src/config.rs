//! The error of a layer that cannot be built as asked.

use std::{error::Error, fmt};

/// A setting that makes no sense, found when a layer is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    section: Option<&'static str>,
    setting: &'static str,
    problem: String,
}

impl ConfigError {
    /// The setting that is wrong, and what to do about it.
    pub fn new(setting: &'static str, problem: impl Into<String>) -> Self {
        Self { section: None, setting, problem: problem.into() }
    }

    /// Says which section of a configuration the setting is in: it reads `retry.max_attempts` then.
    pub const fn in_section(mut self, section: &'static str) -> Self {
        self.section = Some(section);
        self
    }

    /// The name of the setting, as the builder's method is called.
    pub const fn setting(&self) -> &'static str {
        self.setting
    }

    /// The section of a configuration that the setting is in, where it comes from one.
    pub const fn section(&self) -> Option<&'static str> {
        self.section
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.section {
            Some(section) => write!(f, "`{section}.{}` {}", self.setting, self.problem),
            None => write!(f, "`{}` {}", self.setting, self.problem),
        }
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_with_its_section() {
        let error = ConfigError::new("max_attempts", "is 0");
        assert_eq!(error.to_string(), "`max_attempts` is 0");
        assert_eq!(error.in_section("retry").to_string(), "`retry.max_attempts` is 0");
    }
}
