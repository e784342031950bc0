//! Charts: panels of lines or of bars, as SVG, readable at 800 pixels on light and dark pages.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

const WIDTH: u32 = 800;
const TITLE: u32 = 40;
const PANEL: u32 = 340;
const LEGEND_ROW: u32 = 24;
/// Colors that stay apart for the color-blind; the first one is for what the bench is about.
const COLORS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(90, 90, 90),
    RGBColor(86, 180, 233),
    RGBColor(160, 120, 0),
    RGBColor(120, 60, 160),
];

/// One axis system of a chart.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    /// Whether the y axis is logarithmic; the x axis always is.
    pub(crate) log: bool,
    /// A horizontal line to compare with.
    pub(crate) line: Option<f64>,
    /// Name, and points from left to right. Equal names in two panels have one color.
    pub(crate) series: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws panels of lines beside each other, with one legend below. The first name that occurs is
/// drawn strongest, below the others.
pub(crate) fn lines(path: &Path, title: &str, panels: &[Panel]) -> Result<(), String> {
    draw_lines(path, title, panels).map_err(|error| error.to_string())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_lines(path: &Path, title: &str, panels: &[Panel]) -> Drawn {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in panels.iter().flat_map(|panel| &panel.series) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let columns: u32 = if names.len() > 4 { 3 } else { 2 };
    let legend_rows = u32::try_from(names.len())?.div_ceil(columns);
    let height = TITLE + PANEL + legend_rows * LEGEND_ROW + 12;
    let page = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    page.fill(&WHITE)?;
    let (head, rest) = page.split_vertically(TITLE);
    head.draw(&Text::new(title.to_owned(), (16, 12), ("sans-serif", 18)))?;
    let (middle, legend) = rest.split_vertically(PANEL);
    for (area, panel) in middle.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, panel, &names)?;
    }
    for (place, name) in names.iter().enumerate() {
        let at = u32::try_from(place)?;
        let x = 24 + i32::try_from((at % columns) * (WIDTH / columns))?;
        let y = 8 + i32::try_from((at / columns) * LEGEND_ROW)?;
        legend.draw(&PathElement::new(vec![(x, y + 7), (x + 26, y + 7)], style(place)))?;
        legend.draw(&Circle::new((x + 13, y + 7), 4, COLORS[place % COLORS.len()].filled()))?;
        legend.draw(&Text::new((*name).to_owned(), (x + 34, y), ("sans-serif", 14)))?;
    }
    page.present()?;
    Ok(())
}

fn style(place: usize) -> ShapeStyle {
    COLORS[place % COLORS.len()].stroke_width(if place == 0 { 4 } else { 2 })
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel, names: &[&str]) -> Drawn {
    let points = || panel.series.iter().flat_map(|(_, points)| points);
    let edge = |of: fn(f64, f64) -> f64, pick: fn(&(f64, f64)) -> f64, start: f64| {
        points().map(pick).filter(|value| value.is_finite()).fold(start, of)
    };
    let (left, right) = (edge(f64::min, |p| p.0, f64::MAX), edge(f64::max, |p| p.0, f64::MIN));
    let low = panel.line.unwrap_or(f64::MAX).min(edge(f64::min, |p| p.1, f64::MAX));
    let high = panel.line.unwrap_or(f64::MIN).max(edge(f64::max, |p| p.1, f64::MIN));
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_left(12)
        .margin_right(22)
        .margin_top(4)
        .x_label_area_size(44)
        .y_label_area_size(66)
        .caption(&panel.title, ("sans-serif", 15));
    // Room beside the first and the last point, so that no mark is cut off.
    let mut marks: Vec<f64> = points().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let across = (left / 1.25..right * 1.25).log_scale().with_key_points(marks);
    macro_rules! draw {
        ($down:expr) => {{
            let mut chart = builder.build_cartesian_2d(across, $down)?;
            chart
                .configure_mesh()
                .x_desc(&panel.x)
                .y_desc(&panel.y)
                .y_labels(8)
                .axis_desc_style(("sans-serif", 14))
                .label_style(("sans-serif", 13))
                .light_line_style(TRANSPARENT)
                .bold_line_style(RGBColor(225, 225, 225))
                .x_label_formatter(&|value| number(*value))
                .y_label_formatter(&|value| number(*value))
                .draw()?;
            if let Some(line) = panel.line {
                let ends = [(left / 1.25, line), (right * 1.25, line)];
                chart.draw_series(DashedLineSeries::new(ends, 5, 4, BLACK.stroke_width(1)))?;
            }
            for (name, points) in &panel.series {
                let place = names.iter().position(|other| other == name).unwrap_or(0);
                let kept = || points.iter().copied().filter(|(_, y)| y.is_finite());
                chart.draw_series(LineSeries::new(kept(), style(place)))?;
                let color = COLORS[place % COLORS.len()].filled();
                chart.draw_series(kept().map(|point| Circle::new(point, 4, color)))?;
            }
        }};
    }
    if panel.log {
        let (low, high) = (low / 1.5, high * 1.5);
        draw!((low..high).log_scale().with_key_points(round_numbers(low, high)));
    } else {
        draw!(0.0..high * 1.08);
    }
    Ok(())
}

/// Marks of a logarithmic axis: powers of ten, and 2 and 5 times those where there is room.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high / low > 3_000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = (-6..12).map(|power| 10_f64.powi(power));
    let marks = powers.flat_map(|power| steps.iter().map(move |step| step * power));
    marks.filter(|mark| (low..=high).contains(mark)).collect()
}

/// Draws one horizontal bar a figure, with the figure beside it and a mark where it must not pass.
pub(crate) fn bars(
    path: &Path,
    title: &str,
    unit: &str,
    rows: &[(String, f64, Option<f64>)],
) -> Result<(), String> {
    draw_bars(path, title, unit, rows).map_err(|error| error.to_string())
}

fn draw_bars(path: &Path, title: &str, unit: &str, rows: &[(String, f64, Option<f64>)]) -> Drawn {
    const LEFT: i32 = 380;
    const ROOM: f64 = 340.0;
    const ROW: i32 = 28;
    let count = i32::try_from(rows.len())?;
    let height = u32::try_from(64 + count * ROW + 34)?;
    let page = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    page.fill(&WHITE)?;
    page.draw(&Text::new(title.to_owned(), (16, 12), ("sans-serif", 18)))?;
    let widest = rows.iter().map(|(_, value, bound)| value.max(bound.unwrap_or(0.0)));
    let widest = widest.fold(f64::MIN_POSITIVE, f64::max);
    #[expect(clippy::cast_possible_truncation, reason = "a place on the page")]
    let place = |value: f64| LEFT + (value.max(0.0) / widest * ROOM).round() as i32;
    let mut y = 50;
    for (name, value, bound) in rows {
        page.draw(&Text::new(name.clone(), (16, y + 4), ("sans-serif", 14)))?;
        let bar = [(LEFT, y), (place(*value), y + ROW - 8)];
        page.draw(&Rectangle::new(bar, COLORS[1].filled()))?;
        let mut end = place(*value);
        if let Some(bound) = bound {
            let at = place(*bound);
            let mark = vec![(at, y - 3), (at, y + ROW - 5)];
            page.draw(&PathElement::new(mark, COLORS[0].stroke_width(3)))?;
            end = end.max(at);
        }
        page.draw(&Text::new(number(*value), (end + 8, y + 4), ("sans-serif", 14)))?;
        y += ROW;
    }
    let note = format!("{unit}; the upright mark is what the figure must not pass");
    page.draw(&Text::new(note, (16, y + 8), ("sans-serif", 13)))?;
    page.present()?;
    Ok(())
}

/// A figure on an axis.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", trim(value / 1e6)),
        size if size >= 1e4 => format!("{}k", trim(value / 1e3)),
        _ => trim(value),
    }
}

fn trim(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    match text.split_once('.') {
        Some((whole, part)) if part.trim_end_matches('0').is_empty() => whole.to_owned(),
        Some((whole, part)) => format!("{whole}.{}", part.trim_end_matches('0')),
        None => text,
    }
}
