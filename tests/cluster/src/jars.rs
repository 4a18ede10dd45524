//! Cassandra's jars: in a cache, brought there by Maven once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::Error;
use crate::java::SearchPath;
use crate::tool;

const POM: &str = include_str!("../assets/pom.xml");
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// In order of preference. 5.0.8 is the one that this crate is tested with.
const VERSIONS: [&str; 9] = ["5.0.8", "5.0.9", "5.0.7", "5.0.6", "5.0.5", "5.0.4", "5.0.3", "5.0.2", "5.0.1"];
/// Written last: a directory without it was not filled.
const COMPLETE: &str = ".complete";
/// 90 MB over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);

/// The jars of one version of Cassandra.
#[derive(Clone, Debug)]
pub(crate) struct Jars {
    pub(crate) version: String,
    pub(crate) directory: PathBuf,
}

impl Jars {
    /// The jars of `CASSANDRA_VERSION`, or of the first version that can be had. Cached ones need neither Maven nor network.
    pub(crate) fn resolve(search: &SearchPath) -> Result<Self, Error> {
        let cache = cache()?;
        let versions = versions();
        if let Some(jars) = cached(&cache, &versions) {
            return Ok(jars);
        }
        let maven = search.maven()?;
        fs::create_dir_all(&cache).map_err(Error::io("making", &cache))?;
        let lock_file = cache.join(".lock");
        let lock = File::create(&lock_file).map_err(Error::io("making", &lock_file))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| Error::io("locking", &lock_file)(error.into()))?;
        // Another process may have brought them while this one waited for the lock.
        if let Some(jars) = cached(&cache, &versions) {
            return Ok(jars);
        }
        let mut failures = Vec::new();
        for version in versions {
            match download(&maven, &cache, &version) {
                Ok(directory) => return Ok(Self { version, directory }),
                Err(error) => failures.push(format!("{version}: {error}")),
            }
        }
        Err(Error::Jars(format!("Maven brought no version of Cassandra\n{}", failures.join("\n"))))
    }

    /// Whether [`resolve`](Self::resolve) would do without Maven.
    pub(crate) fn are_cached() -> bool {
        cache().is_ok_and(|cache| cached(&cache, &versions()).is_some())
    }

    /// The class path entry for all jars.
    pub(crate) fn class_path(&self) -> String {
        format!("{}/*", self.directory.display())
    }

    /// The jar of the agent that measures objects in memory. Without it Cassandra guesses.
    pub(crate) fn jamm(&self) -> Option<PathBuf> {
        jar(&self.directory, "jamm-")
    }
}

fn versions() -> Vec<String> {
    match std::env::var("CASSANDRA_VERSION") {
        Ok(version) if !version.is_empty() => vec![version],
        _ => VERSIONS.map(str::to_owned).into(),
    }
}

fn cached(cache: &Path, versions: &[String]) -> Option<Jars> {
    versions.iter().find_map(|version| {
        let directory = cache.join(version);
        directory.join(COMPLETE).is_file().then(|| Jars { version: version.clone(), directory })
    })
}

/// `CASSANDRA_JARS`, or `tower-cassandra/jars` in the user's cache directory.
fn cache() -> Result<PathBuf, Error> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("CASSANDRA_JARS")
        .or_else(|| {
            let user =
                variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))?;
            Some(user.join("tower-cassandra/jars"))
        })
        .ok_or_else(|| Error::Request("set CASSANDRA_JARS: there is no HOME to cache jars in".to_owned()))
}

fn download(maven: &Path, cache: &Path, version: &str) -> Result<PathBuf, Error> {
    let part = cache.join(format!(".part-{version}"));
    // Left by a process that was killed; the lock says that nobody uses it.
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part).map_err(Error::io("making", &part))?;
    let pom = part.join("pom.xml");
    fs::write(&pom, POM).map_err(Error::io("writing", &pom))?;
    let output = format!("-DoutputDirectory={}", part.display());
    let version_property = format!("-Dcassandra.version={version}");
    let arguments = [
        "-B",
        "-ntp",
        "-f",
        &pom.to_string_lossy(),
        &version_property,
        COPY_DEPENDENCIES,
        "-DincludeScope=runtime",
        &output,
    ];
    let result =
        tool::run("mvn", maven, &output, arguments, DOWNLOAD_LIMIT).and_then(|_| check(&part, version));
    if let Err(error) = result {
        let _ = fs::remove_dir_all(&part);
        return Err(match error {
            Error::Command(output) => Error::Jars(first_errors(&output)),
            other => other,
        });
    }
    let complete = part.join(COMPLETE);
    fs::write(&complete, "").map_err(Error::io("writing", &complete))?;
    let directory = cache.join(version);
    let _ = fs::remove_dir_all(&directory);
    fs::rename(&part, &directory).map_err(Error::io("renaming", &part))?;
    Ok(directory)
}

/// Maven can succeed without having brought all of it.
fn check(directory: &Path, version: &str) -> Result<(), Error> {
    let cassandra = format!("cassandra-all-{version}");
    for needed in [&cassandra, "jna-", "snakeyaml-", "logback-classic-", "netty-"] {
        if jar(directory, needed).is_none() {
            return Err(Error::Jars(format!("{needed}*.jar is missing")));
        }
    }
    Ok(())
}

fn jar(directory: &Path, prefix: &str) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        path.extension().is_some_and(|extension| extension == "jar")
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    })
}

/// What matters of Maven's chatter.
fn first_errors(output: &str) -> String {
    let errors: Vec<&str> = output.lines().filter(|line| line.starts_with("[ERROR]")).take(3).collect();
    if errors.is_empty() { output.lines().last().unwrap_or_default().to_owned() } else { errors.join("\n") }
}
