//! The log of a server, on stderr: lines for people, or one JSON object a line.

use std::{fmt, io::IsTerminal};

use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::args::LogFormat;

/// What happens to sessions is logged; `ZKLORA_LOG` sets how much.
pub fn to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_env("ZKLORA_LOG").unwrap_or_else(|_| EnvFilter::new("warn,zklora_runtime=info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Only a second subscriber in one process would be refused.
    let _ = match format {
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.with_ansi(false).event_format(Objects).try_init(),
    };
}

/// Each event as one object: `time`, `level`, `message`, and its fields. Whatever they hold, the
/// object is one line.
struct Objects;

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // After the fields: no field is taken for one of these.
        fields.0.insert("time".into(), json!(time));
        fields.0.insert("level".into(), json!(event.metadata().level().as_str()));
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

/// The fields of an event.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_string(), value);
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn text_of_others_stays_in_its_object() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber =
            tracing_subscriber::fmt().event_format(Objects).with_writer(move || writer.clone()).with_ansi(false);
        tracing::subscriber::with_default(subscriber.finish(), || {
            let hostile = "a\"}\n{\"message\":\"proven\u{1b}[2J\u{202e}";
            tracing::info!(client = hostile, rows = 7u64, "{hostile}");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["client"], "a\"}\n{\"message\":\"proven\u{1b}[2J\u{202e}");
        assert_eq!((&object["rows"], &object["level"]), (&json!(7), &json!("INFO")));
        assert!(object["message"].as_str().unwrap().starts_with("a\"}\n{") && object["time"].is_string());
        assert!(!text.contains('\u{1b}'));
    }
}
