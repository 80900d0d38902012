//! The log of a server, on stderr: one line or one JSON object per event, even if its fields hold
//! foreign text.

use std::{
    fmt,
    io::{self, Write},
};

use serde_json::{Map, Value, json as value};
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
use zklora_files::text::{json as json_text, shown};

use crate::args::LogFormat;

/// Installs the log. `ZKLORA_LOG` sets the filter; by default, events of sessions are logged.
pub fn to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_env("ZKLORA_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,zklora_session=info,zklora_runtime=info"));
    // No colours: `Escaped` would escape their terminal codes, too.
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
    // Fails only if the process already has a subscriber.
    let _ = match format {
        LogFormat::Text => subscriber.with_writer(|| Escaped(io::stderr())).try_init(),
        LogFormat::Json => subscriber.with_writer(io::stderr).event_format(Objects).try_init(),
    };
}

/// Escapes events. The subscriber passes one event per call, with a line break at its end.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = shown(text.strip_suffix('\n').unwrap_or(&text)) + "\n";
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Formats an event as one JSON object on one line: `time`, `level`, `message`, and its fields.
struct Objects;

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // Inserted last, so that no field replaces one of these.
        fields.0.insert("time".into(), value!(time));
        fields.0.insert("level".into(), value!(event.metadata().level().as_str()));
        writeln!(writer, "{}", json_text(&Value::Object(fields.0)).map_err(|_| fmt::Error)?)
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
        self.put(field, value!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, value!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let event = || {
            tracing::warn!(
                peer = "a\nERROR forged",
                rows = 7u64,
                "failed: {}",
                "x\n2026 INFO proven\u{1b}[2K\u{202e}"
            )
        };
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        match format {
            LogFormat::Text => {
                let subscriber = subscriber.with_writer(move || Escaped(writer.clone())).finish();
                tracing::subscriber::with_default(subscriber, event);
            }
            LogFormat::Json => {
                let subscriber =
                    subscriber.event_format(Objects).with_writer(move || writer.clone()).finish();
                tracing::subscriber::with_default(subscriber, event);
            }
        }
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object_whatever_is_in_it() {
        let text = logged(LogFormat::Json);
        assert!(
            text.matches('\n').count() == 1
                && text.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{text:?}"
        );
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&event["rows"], &event["level"]), (&value!(7), &value!("WARN")));
        assert!(event["time"].is_string());
        assert_eq!(event["peer"], "a\nERROR forged");
        assert_eq!(event["message"], "failed: x\n2026 INFO proven\u{1b}[2K\u{202e}");
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let text = logged(LogFormat::Text);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        // The subscriber has a code of its own for the escape character.
        assert!(
            text.ends_with('\n')
                && text.contains(r"x\n2026 INFO proven")
                && text.contains(r"[2K\u{202e}"),
            "{text:?}"
        );
    }
}
