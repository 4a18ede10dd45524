//! Is there a Java that Cassandra runs on, and a Maven that can fetch Cassandra?

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The Java versions that Cassandra 5.0 supports; the first is the one to install.
const SUPPORTED: [u32; 2] = [17, 11];

/// Where programs are looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct SearchPath {
    java_home: Option<PathBuf>,
    path: OsString,
}

/// A Java that Cassandra runs on.
#[derive(Clone, Debug)]
pub(crate) struct Java {
    /// The program `java`.
    pub(crate) java: PathBuf,
}

impl SearchPath {
    /// `JAVA_HOME` and `PATH` of this process.
    pub(crate) fn from_env() -> Self {
        Self {
            java_home: std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            path: std::env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// The first Java of a supported version: that of `JAVA_HOME`, then those in `PATH`.
    pub(crate) fn java(&self) -> Result<Java, Error> {
        let home = self.java_home.iter().map(|home| home.join("bin"));
        let mut unsupported = None;
        for java in home.chain(std::env::split_paths(&self.path)).filter_map(|dir| program(&dir, "java")) {
            match major_version(&java) {
                Some(version) if SUPPORTED.contains(&version) => return Ok(Java { java }),
                Some(version) => {
                    unsupported
                        .get_or_insert(format!("the one found, {}, is Java {version}", java.display()));
                }
                None => {
                    unsupported.get_or_insert(format!(
                        "the one found, {}, does not tell its version",
                        java.display()
                    ));
                }
            }
        }
        let found = unsupported.unwrap_or_else(|| "`java` is not to be found".to_owned());
        Err(Error::Missing(format!(
            "Cassandra needs Java 17, and {found}: install it (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) or set \
             JAVA_HOME; or set CASSANDRA_CONTACT_POINTS to use a cluster of your own"
        )))
    }

    /// The program `mvn`.
    pub(crate) fn maven(&self) -> Result<PathBuf, Error> {
        std::env::split_paths(&self.path).find_map(|dir| program(&dir, "mvn")).ok_or_else(|| {
            Error::Missing(
                "Cassandra is fetched by Maven the first time, and `mvn` is not to be found: install it (Debian, Ubuntu: apt-get \
                 install maven); or set CASSANDRA_CONTACT_POINTS to use a cluster of your own"
                    .to_owned(),
            )
        })
    }
}

impl Java {
    /// The program `keytool` beside this `java`.
    pub(crate) fn keytool(&self) -> PathBuf {
        // /usr/bin/java is a symbolic link on Debian; a JRE keeps its keytool beside the real one.
        let real = self.java.canonicalize().unwrap_or_else(|_| self.java.clone());
        real.with_file_name("keytool")
    }
}

fn program(directory: &Path, name: &str) -> Option<PathBuf> {
    Some(directory.join(name)).filter(|path| path.is_file())
}

fn major_version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    parse_major_version(&String::from_utf8_lossy(&output.stderr))
}

/// The 17 of `openjdk version "17.0.15" 2025-04-15`, the 8 of `java version "1.8.0_292"`.
fn parse_major_version(text: &str) -> Option<u32> {
    let version = text.split("version \"").nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    match numbers.next()? {
        1 => numbers.next(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_old_and_new_are_read() {
        assert_eq!(parse_major_version("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(parse_major_version("openjdk version \"21\" 2023-09-19\n"), Some(21));
        assert_eq!(parse_major_version("java version \"1.8.0_292\"\n"), Some(8));
        assert_eq!(parse_major_version("Unable to locate a Java Runtime.\n"), None);
    }

    #[test]
    fn a_missing_java_is_told_in_one_line_that_says_what_to_install() {
        let message = SearchPath::default().java().unwrap_err().to_string();
        assert!(message.starts_with("Cassandra needs Java 17, and `java` is not to be found"), "{message}");
        assert!(message.contains("openjdk-17-jre-headless"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn a_missing_maven_is_told_in_one_line_that_says_what_to_install() {
        let message = SearchPath::default().maven().unwrap_err().to_string();
        assert!(message.contains("`mvn` is not to be found"), "{message}");
        assert!(message.contains("apt-get install maven"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}
