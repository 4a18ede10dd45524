//! The requests that go over the socket: their words, and what each does to the cluster.

use std::fmt::Write as _;
use std::time::Duration;

use cassandra_cluster::{Cluster, Error, State};

/// Between words, which may contain spaces.
const SEPARATOR: char = '\t';
const WAIT_LIMIT: Duration = Duration::from_secs(90);

/// What a client asks of a running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    words: Vec<&'a str>,
    action: Action<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action<'a> {
    Down,
    Status,
    Env,
    Stop(usize),
    Start(usize),
    Restart(usize),
    Kill(usize),
    Pause(usize),
    Resume(usize),
    Wait(usize, State, Duration),
    Nodetool(usize, Vec<&'a str>),
    Log(usize),
}

impl<'a> Request<'a> {
    /// Reads a request from the words of a command line.
    pub(crate) fn parse(words: &[&'a str]) -> Result<Self, String> {
        let number = |word: &str| word.parse().map_err(|_| format!("{word} is not a node's number"));
        let action = match words {
            ["down"] => Action::Down,
            ["status"] => Action::Status,
            ["env"] => Action::Env,
            ["stop", n] => Action::Stop(number(n)?),
            ["start", n] => Action::Start(number(n)?),
            ["restart", n] => Action::Restart(number(n)?),
            ["kill", n] => Action::Kill(number(n)?),
            ["pause", n] => Action::Pause(number(n)?),
            ["resume", n] => Action::Resume(number(n)?),
            ["log", n] => Action::Log(number(n)?),
            ["nodetool", n, command @ ..] => Action::Nodetool(number(n)?, command.to_vec()),
            ["wait", n, state, limit @ ..] if limit.len() <= 1 => {
                let state = match *state {
                    "up" => State::Up,
                    "down" => State::Down,
                    other => return Err(format!("`wait` takes up or down, not {other}")),
                };
                let limit = match limit.first() {
                    Some(seconds) => seconds
                        .parse()
                        .map(Duration::from_secs)
                        .map_err(|_| format!("{seconds} is not a number of seconds"))?,
                    None => WAIT_LIMIT,
                };
                Action::Wait(number(n)?, state, limit)
            }
            _ => return Err(format!("`{}` is nothing it can do; see --help", words.join(" "))),
        };
        Ok(Self { words: words.to_vec(), action })
    }

    /// The line that carries this request.
    pub(crate) fn to_line(&self) -> String {
        self.words.join(&SEPARATOR.to_string()) + "\n"
    }

    /// The request that a line carries.
    pub(crate) fn from_line(line: &'a str) -> Result<Self, String> {
        Self::parse(&line.trim_end_matches('\n').split(SEPARATOR).collect::<Vec<_>>())
    }

    /// Whether the cluster is to end.
    pub(crate) fn is_down(&self) -> bool {
        self.action == Action::Down
    }

    /// Does it; returns what to print.
    pub(crate) fn execute(&self, cluster: &Cluster) -> Result<String, Error> {
        let done = match &self.action {
            Action::Down => {
                cluster.shutdown();
                Ok(())
            }
            Action::Status => return Ok(status(cluster)),
            Action::Env => return Ok(env(cluster)),
            Action::Log(n) => return Ok(cluster.logs(*n) + "\n"),
            Action::Nodetool(n, command) => return cluster.nodetool(*n, command),
            Action::Stop(n) => cluster.stop(*n),
            Action::Start(n) => cluster.start_node(*n),
            Action::Restart(n) => cluster.restart(*n),
            Action::Kill(n) => cluster.kill(*n),
            Action::Pause(n) => cluster.pause(*n),
            Action::Resume(n) => cluster.resume(*n),
            Action::Wait(n, state, limit) => cluster.wait_for(*n, *state, *limit),
        };
        done.map(|()| String::new())
    }
}

fn status(cluster: &Cluster) -> String {
    let mut table = format!("Cassandra {} in {}\n", cluster.version(), cluster.directory().display());
    for n in 1..=cluster.size() {
        let state = match cluster.pid(n) {
            None => "down".to_owned(),
            Some(pid) if cluster.is_paused(n) => format!("paused, pid {pid}"),
            Some(pid) => format!("up, pid {pid}"),
        };
        let _ = writeln!(table, "{n}  {:<18} {:<8} {state}", cluster.address(n), cluster.datacenter(n));
    }
    table
}

fn env(cluster: &Cluster) -> String {
    let points: Vec<String> = cluster.contact_points().iter().map(ToString::to_string).collect();
    let mut lines = format!("export CASSANDRA_CONTACT_POINTS={}\n", points.join(","));
    if let Some(authority) = cluster.ca_pem() {
        let _ = writeln!(lines, "export CASSANDRA_CA={}", authority.display());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_line_that_carries_it() {
        for words in [&["wait", "3", "down", "7"][..], &["nodetool", "1", "status", "a b"], &["down"]] {
            let request = Request::parse(words).unwrap();
            let line = request.to_line();
            assert_eq!(Request::from_line(&line).unwrap(), request);
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        assert!(Request::parse(&["kill"]).unwrap_err().contains("nothing it can do"));
        assert!(Request::parse(&["kill", "x"]).unwrap_err().contains("not a node's number"));
        assert!(Request::parse(&["wait", "1", "gone"]).unwrap_err().contains("up or down"));
    }
}
