//! The ratios to the floors as a picture.

use crate::report::{Goal, Row};
use plotters::prelude::*;
use std::path::Path;

/// Draws one bar for each figure that has a floor, and a mark where its goal is.
pub fn draw(file: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let with_floor: Vec<(&Row, f64)> =
        rows.iter().filter_map(|row| Some((row, row.ratio?.median))).filter(|(_, r)| r.is_finite()).collect();
    if with_floor.is_empty() {
        return Ok(());
    }
    let count = i32::try_from(with_floor.len())?;
    let height = u32::try_from(count * 26 + 90)?;
    let widest = with_floor.iter().map(|(_, ratio)| *ratio).fold(2.0, f64::max) * 1.1;
    let root = SVGBackend::new(file, (1000, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("figure ÷ floor of the same run (shorter is better, but for throughput)", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(430)
        .build_cartesian_2d(0.0..widest, (0..count - 1).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(with_floor.len())
        .y_label_formatter(&|at| {
            let (SegmentValue::CenterOf(i) | SegmentValue::Exact(i)) = at else { return String::new() };
            let row = usize::try_from(count - 1 - i).ok().and_then(|i| with_floor.get(i));
            row.map(|(row, _)| format!("{} {}", row.p, row.what)).unwrap_or_default()
        })
        .draw()?;
    for (i, (row, ratio)) in with_floor.iter().enumerate() {
        let at = count - 1 - i32::try_from(i)?;
        let colour = match row.met() {
            Some(true) => GREEN.mix(0.6),
            Some(false) => RED.mix(0.6),
            None => BLUE.mix(0.4),
        };
        let bar = [(0.0, SegmentValue::Exact(at)), (*ratio, SegmentValue::Exact(at + 1))];
        let mut bar = Rectangle::new(bar, colour.filled());
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        if let Goal::Ratio(goal) | Goal::RatioAtLeast(goal) = row.goal {
            let line = [(goal, SegmentValue::Exact(at)), (goal, SegmentValue::Exact(at + 1))];
            chart.draw_series(LineSeries::new(line, BLACK.stroke_width(2)))?;
        }
    }
    root.present()?;
    Ok(())
}
