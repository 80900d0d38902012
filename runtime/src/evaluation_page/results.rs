//! Base against adapted, metric by metric, with the groups as rows.

use std::fmt::Write;

use crate::{
    evaluate::{GroupReport, Interval, Report, Right, Stage, in_nats, in_points},
    html::{self, count, number, percent, plural, text},
    numbers::{fixed, signed},
    svg,
};

/// Rows of a table.
const ROWS: usize = 100;
/// Rows of a plot.
const DRAWN: usize = 12;
/// Groups whose confusion is shown.
const CONFUSIONS: usize = 12;

/// A metric of a group that is in a plot and in a table.
struct Row<'a> {
    group: &'a GroupReport,
    /// In the unit that is shown.
    gain: Interval,
    shown: String,
    cells: Vec<String>,
}

/// A metric.
struct Metric<'a> {
    id: &'static str,
    title: &'static str,
    about: &'static str,
    /// What the horizontal axis says.
    axis: &'static str,
    decimals: usize,
    /// Between `group` and `gain`, and after it.
    heads: &'a [&'static str],
    rows: Vec<Row<'a>>,
}

type OfRight = fn(&GroupReport) -> Option<&Right>;

/// Appends all results.
pub fn results(out: &mut String, report: &Report) {
    if Stage::of(report) == Stage::Contradicted {
        out.push_str(
            "<p class=\"next gap\"><strong>What follows is what the contributor signed. Do not \
             rely on these numbers.</strong></p>",
        );
    }
    metric(out, &losses(report));
    let rights: [(&str, &str, &str, OfRight); 3] = [
        (
            "accuracy",
            "Right answers",
            "A question is right if the model finds its answer likelier than every other choice.",
            |group| group.accuracy.as_ref(),
        ),
        (
            "normalised",
            "Right answers, by length",
            "The same, with each choice's likelihood divided by its length: long answers lose \
             nothing for being long.",
            |group| group.accuracy_normalised.as_ref(),
        ),
        (
            "greedy",
            "Texts said word for word",
            "A text is right if each of its scored tokens is the one that the model finds \
             likeliest.",
            |group| group.greedy.as_ref(),
        ),
    ];
    for (id, title, about, of) in rights {
        metric(out, &shares(report, id, title, about, of));
    }
    out.push_str(
        "<p class=\"soft gap\">± is a 95 % interval. It holds if your units were drawn at random \
         from what you care about; units that were picked speak for themselves alone. With only a \
         few units, or a few that changed, it is a rough guess. Gained: only the adapted model is \
         right. Lost: only the base model is.</p>",
    );
    confusions(out, report);
    without_values(out, report);
}

fn losses(report: &Report) -> Metric<'_> {
    let of = |group| -> Option<Row<'_>> {
        let group: &GroupReport = group;
        let loss = group.loss.as_ref()?;
        let perplexity = |loss: f64| number(loss.exp());
        let shown = in_nats(&loss.gain);
        let cells = vec![
            fixed(loss.base, 3),
            fixed(loss.adapted, 3),
            gain_cell(&loss.gain, &shown),
            format!("{} → {}", perplexity(loss.base), perplexity(loss.adapted)),
            count(group.tokens as usize),
            count(group.units as usize),
        ];
        Some(Row { group, gain: loss.gain, shown, cells })
    };
    Metric {
        id: "loss",
        title: "How well your texts are predicted",
        about: "Loss is how much each token surprises the model, in nats; lower is better. \
                Perplexity is the same as a number of equally likely choices.",
        axis: "nats a token; right of zero is better",
        decimals: 3,
        heads: &["base", "adapted", "gain", "perplexity", "tokens", "units"],
        rows: report.groups.iter().filter_map(of).collect(),
    }
}

fn shares<'a>(
    report: &'a Report,
    id: &'static str,
    title: &'static str,
    about: &'static str,
    of: OfRight,
) -> Metric<'a> {
    let row = |group: &'a GroupReport| {
        let right = of(group)?;
        let points = |of: f64| of * 100.0;
        let gain = Interval {
            value: points(right.gain.value),
            plus_minus: right.gain.plus_minus.map(points),
        };
        let shown = format!("{} points", in_points(&right.gain, group.units));
        let cells = vec![
            percent(right.base),
            percent(right.adapted),
            gain_cell(&gain, &in_points(&right.gain, group.units)),
            count(right.gained as usize),
            count(right.lost as usize),
            count(group.units as usize),
        ];
        Some(Row { group, gain, shown, cells })
    };
    Metric {
        id,
        title,
        about,
        axis: "points of a hundred; right of zero is better",
        decimals: 1,
        heads: &["base", "adapted", "gain, points", "gained", "lost", "units"],
        rows: report.groups.iter().filter_map(row).collect(),
    }
}

/// Whether the adapter is better, as far as the interval tells: a class, and a word.
fn side(gain: &Interval) -> (&'static str, &'static str) {
    match gain.plus_minus {
        Some(half) if gain.value - half > 0.0 => ("better", "better"),
        Some(half) if gain.value + half < 0.0 => ("worse", "worse"),
        _ => ("open", "not clear"),
    }
}

fn gain_cell(gain: &Interval, shown: &str) -> String {
    let (class, word) = side(gain);
    format!("<strong>{shown}</strong> <span class=\"mark {class}\">{word}</span>")
}

fn metric(out: &mut String, metric: &Metric<'_>) {
    let Metric { id, title, about, rows, .. } = metric;
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title}</h2><p>{about} {}</p>\
         <div class=\"results\">",
        summary(rows)
    );
    let whiskers: Vec<svg::Whisker> = rows
        .iter()
        .take(DRAWN)
        .map(|row| svg::Whisker {
            name: row.group.name.clone(),
            shown: row.shown.clone(),
            value: row.gain.value,
            plus_minus: row.gain.plus_minus,
        })
        .collect();
    let label = format!("Gain of {}, with its interval", plural(whiskers.len(), "group"));
    let note = match rows.len() - whiskers.len() {
        0 => String::new(),
        more => format!(" The first {DRAWN} groups; {} more.", count(more)),
    };
    let _ = write!(
        out,
        "<figure class=\"card\"><figcaption>What the adapter gains, with a 95 % interval.{note}\
         </figcaption>{}</figure><div class=\"card\">",
        svg::whiskers(&label, metric.axis, &whiskers, |x| signed(x, metric.decimals))
    );
    let mut table = vec![vec!["group".to_string()]];
    table[0].extend(metric.heads.iter().map(ToString::to_string));
    table.extend(rows.iter().take(ROWS).map(|row| {
        let mut cells = vec![format!("<bdi>{}</bdi>", text(&row.group.name))];
        cells.extend(row.cells.iter().cloned());
        cells
    }));
    html::table(out, title, &table);
    more(out, rows.len(), ROWS);
    out.push_str("</div></div>");
    out.push_str("</section>");
}

/// Says that rows are left out.
fn more(out: &mut String, all: usize, shown: usize) {
    if all > shown {
        let _ = write!(
            out,
            "<p class=\"soft note\">{} more: <code>zklora report --json</code> has them all.</p>",
            plural(all - shown, "group")
        );
    }
}

fn summary(rows: &[Row<'_>]) -> String {
    let of = |class: &str| rows.iter().filter(|row| side(&row.gain).0 == class).count();
    let (better, worse, open) = (of("better"), of("worse"), of("open"));
    let verb = if better == 1 { "is" } else { "are" };
    match rows.len() {
        1 if better == 1 => "<strong>The adapter is better.</strong>".into(),
        1 if worse == 1 => "<strong>The adapter is worse.</strong>".into(),
        1 => "<strong>It is not clear whether the adapter is better or worse.</strong>".into(),
        all if better == all => {
            format!("<strong>The adapter is better in all {} groups.</strong>", count(all))
        }
        all => format!(
            "<strong>Of {} groups, {} {verb} better with the adapter, {} worse, and {} not \
             clear.</strong>",
            count(all),
            count(better),
            count(worse),
            count(open)
        ),
    }
}

fn confusions(out: &mut String, report: &Report) {
    let with = || report.groups.iter().filter_map(|group| Some((group, group.confusion.as_ref()?)));
    if with().next().is_none() {
        return;
    }
    out.push_str(
        "<section aria-labelledby=\"confusion\"><h2 id=\"confusion\">What is taken for what</h2>\
         <p>Each row is a right answer, each column what the model chose, counted from 0 as in \
         your questions. Right choices are on the diagonal, in bold.</p>",
    );
    for (group, confusion) in with().take(CONFUSIONS) {
        let used = [&confusion.base, &confusion.adapted]
            .iter()
            .any(|matrix| matrix.iter().any(|row| row.last().is_some_and(|none| *none > 0)));
        let _ = write!(
            out,
            "<article class=\"card\"><h3><bdi>{}</bdi></h3><div class=\"grid2\">",
            text(&group.name)
        );
        matrix(out, "Base model", &confusion.base, used);
        matrix(out, "Adapted", &confusion.adapted, used);
        out.push_str("</div></article>");
    }
    more(out, with().count(), CONFUSIONS);
    out.push_str("</section>");
}

fn matrix(out: &mut String, caption: &str, matrix: &[Vec<u64>], with_none: bool) {
    let choices = matrix.len();
    let mut head = vec!["answer".to_string()];
    head.extend((0..choices).map(|choice| format!("chose {choice}")));
    head.extend(with_none.then(|| "no score".to_string()));
    let mut table = vec![head];
    for (answer, row) in matrix.iter().enumerate() {
        let of_row = row.iter().sum::<u64>().max(1) as f64;
        let mut cells = vec![answer.to_string()];
        for (choice, times) in row.iter().take(choices + usize::from(with_none)).enumerate() {
            let class = if choice == answer { "hit" } else { "miss" };
            let share = 100.0 * *times as f64 / of_row;
            cells.push(format!(
                "<span class=\"cell {class}\" style=\"--part:{share:.0}%\">{}</span>",
                count(*times as usize)
            ));
        }
        table.push(cells);
    }
    html::table(out, caption, &table);
}

fn without_values(out: &mut String, report: &Report) {
    let none: Vec<&GroupReport> =
        report.groups.iter().filter(|group| group.signed.is_none()).collect();
    if none.is_empty() {
        return;
    }
    let names: Vec<String> = none
        .iter()
        .take(ROWS)
        .map(|group| format!("<bdi><code>{}</code></bdi>", text(&group.name)))
        .collect();
    let _ = write!(
        out,
        "<section aria-labelledby=\"none\"><h2 id=\"none\">Groups without values</h2>\
         <div class=\"card\"><p>The base model has a score of no unit of these groups, so there is \
         nothing to compare: {}.</p>",
        names.join(", ")
    );
    more(out, none.len(), ROWS);
    out.push_str("</div></section>");
}
