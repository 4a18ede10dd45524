//! How values are written in a configuration: durations with their unit, levels and modes by name, secrets never.

use std::{fmt, time::Duration};

use crate::{health, telemetry::QueryText};
use palisade::{breaker, throttle};
use scylla::statement::{Consistency, SerialConsistency};
use serde::{Deserialize, Deserializer, Serializer, de};

/// A duration as text, with one unit: `300ms`, `2s`, `1m`.
pub(super) mod duration {
    use super::{Deserializer, Duration, Serializer, de, read};

    // The longest first: `ms` ends with `s`.
    const UNITS: [(&str, u128); 6] = [
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", SECOND),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ];

    /// In nanoseconds.
    const SECOND: u128 = 1_000_000_000;

    const ALLOWED: &str = "a whole number and its unit (us, ms, s, m, h or d): \"300ms\", \"2s\", \"1m\"";

    pub(in crate::stack) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*duration))
    }

    pub(in crate::stack) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        read(deserializer, ALLOWED, |text| {
            parse(text).ok_or_else(|| de::Error::custom(format!("{text:?} is no duration: write {ALLOWED}")))
        })
    }

    /// In the largest unit that says it exactly; what is below a microsecond is cut off.
    pub(super) fn text(duration: Duration) -> String {
        let nanos = duration.as_nanos();
        let fits = UNITS.iter().rev().find(|(_, unit)| nanos >= *unit && nanos.is_multiple_of(*unit));
        match fits {
            Some((name, unit)) => format!("{}{name}", nanos / unit),
            None if nanos < 1_000 => "0ms".to_owned(),
            None => format!("{}us", nanos / 1_000),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Duration> {
        let text = text.trim();
        let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
        let nanos = number.parse::<u128>().ok()?.checked_mul(*nanos)?;
        let seconds = u64::try_from(nanos / SECOND).ok()?;
        Some(Duration::new(seconds, u32::try_from(nanos % SECOND).ok()?))
    }

    /// The same where there may be none.
    pub(in crate::stack) mod optional {
        use super::{Deserializer, Duration, Serializer};

        #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
        pub(in crate::stack) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::stack) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

/// One of a few values, each by its name.
macro_rules! by_name {
    ($(#[$doc:meta])* $module:ident: $type:ty { $($name:literal => $value:path,)+ }) => {
        $(#[$doc])*
        pub(in crate::stack) mod $module {
            use super::{Deserializer, Serializer, read, unknown};

            const NAMES: &[(&str, $type)] = &[$(($name, $value)),+];

            pub(in crate::stack) fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(name(*value))
            }

            pub(in crate::stack) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                read(deserializer, "one of a few names", |text| {
                    let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
                    found.map(|(_, value)| *value).ok_or_else(|| unknown(text, NAMES.iter().map(|(name, _)| *name)))
                })
            }

            pub(in crate::stack) fn name(value: $type) -> &'static str {
                NAMES.iter().find(|(_, known)| *known == value).map_or("unknown", |(name, _)| *name)
            }
        }
    };
}

by_name! {
    /// A consistency level as CQL writes it.
    consistency: scylla::statement::Consistency {
        "LOCAL_QUORUM" => super::Consistency::LocalQuorum,
        "LOCAL_ONE" => super::Consistency::LocalOne,
        "QUORUM" => super::Consistency::Quorum,
        "ONE" => super::Consistency::One,
        "TWO" => super::Consistency::Two,
        "THREE" => super::Consistency::Three,
        "EACH_QUORUM" => super::Consistency::EachQuorum,
        "ALL" => super::Consistency::All,
        "ANY" => super::Consistency::Any,
        "SERIAL" => super::Consistency::Serial,
        "LOCAL_SERIAL" => super::Consistency::LocalSerial,
    }
}

by_name! {
    /// A serial consistency level as CQL writes it.
    serial_consistency: scylla::statement::SerialConsistency {
        "LOCAL_SERIAL" => super::SerialConsistency::LocalSerial,
        "SERIAL" => super::SerialConsistency::Serial,
    }
}

by_name! {
    /// What a circuit breaker does.
    breaker_mode: palisade::breaker::Mode {
        "normal" => super::breaker::Mode::Normal,
        "metrics_only" => super::breaker::Mode::MetricsOnly,
        "forced_open" => super::breaker::Mode::ForcedOpen,
        "forced_closed" => super::breaker::Mode::ForcedClosed,
    }
}

by_name! {
    /// What a throttle does.
    throttle_mode: palisade::throttle::Mode {
        "on" => super::throttle::Mode::On,
        "observing" => super::throttle::Mode::Observing,
        "off" => super::throttle::Mode::Off,
    }
}

by_name! {
    /// What is done with what cannot be served.
    health_mode: crate::health::Mode {
        "refuse" => super::health::Mode::Refuse,
        "report_only" => super::health::Mode::ReportOnly,
    }
}

by_name! {
    /// What a span tells of a statement.
    query_text: crate::telemetry::QueryText {
        "off" => super::QueryText::Off,
        "without_literals" => super::QueryText::WithoutLiterals,
        "with_literals" => super::QueryText::WithLiterals,
    }
}

/// A list of names: an array, or, as a variable of the environment has it, one text with commas.
pub(super) mod names {
    use super::{Deserializer, de};

    pub(in crate::stack) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<String>, D::Error> {
        struct Names;

        impl<'de> de::Visitor<'de> for Names {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of names, or one text with commas between them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                Ok(names.map(str::to_owned).collect())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(names)
            }
        }

        deserializer.deserialize_any(Names)
    }
}

/// A text that is never printed, nor written into a configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What is wrong with a secret is said without it.
        struct Hidden;

        impl Hidden {
            const PROBLEM: &'static str = "is no text: put it in quotes";
        }

        impl de::Visitor<'_> for Hidden {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom(Self::PROBLEM))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom(Self::PROBLEM))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom(Self::PROBLEM))
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<Secret, E> {
                Err(E::custom(Self::PROBLEM))
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<Secret, E> {
                Err(E::custom(Self::PROBLEM))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom(Self::PROBLEM))
            }
        }

        deserializer.deserialize_any(Hidden)
    }
}

/// Reads a text, and says what is allowed where there is something else.
fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    allowed: &'static str,
    parse: impl FnOnce(&str) -> Result<T, D::Error>,
) -> Result<T, D::Error> {
    struct Text(&'static str);

    impl de::Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }

    parse(&deserializer.deserialize_str(Text(allowed))?)
}

fn unknown<E: de::Error>(text: &str, names: impl Iterator<Item = &'static str>) -> E {
    E::custom(format!("{text:?} is none of {}", names.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_number_and_a_unit() {
        let good = [("300ms", 300_000), ("2s", 2_000_000), ("1 m", 60_000_000), ("15us", 15), ("0ms", 0)];
        for (text, micros) in good {
            assert_eq!(duration::parse(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "2", "s", "2 sec", "-1s", "1.5s", "2s 3ms", "99999999999999999999d", "1ns"] {
            assert_eq!(duration::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_in_the_largest_unit_that_says_it_exactly() {
        for text in ["300ms", "2s", "90s", "1m", "1h", "1d", "1500us", "0ms"] {
            assert_eq!(duration::text(duration::parse(text).unwrap()), text);
        }
        assert_eq!(duration::text(Duration::from_nanos(1_999)), "1us");
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret");
    }
}
