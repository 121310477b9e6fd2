"""Tables of text: .csv and .tsv."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import NnoptError, Run, UnreadableError, option
from nnopt_plugins.datasets.files import FileDataset, Kind

if TYPE_CHECKING:
    from nnopt_cli.data import Table


class CSV(FileDataset):
    """A table in a text file; the first line names the columns."""

    form: ClassVar[Kind] = "csv"

    separator: str = option("", help="What stands between values; by default a tab in .tsv, else a comma.")
    header: bool = option(True, help="Whether the first line names the columns; else they are c1, c2, …")

    def open(self, run: Run) -> Table:
        """The table, in memory."""
        try:
            import pyarrow as pa
            from pyarrow import csv
        except ImportError as error:
            from nnopt_cli.data import missing_extra

            raise missing_extra(f"{self.path}: reading tables of text", "pyarrow") from error
        from nnopt_cli.data import Table
        from nnopt_plugins.datasets.parquet_columns import column_of

        separator = self.separator or ("\t" if self.path.suffix.lower() == ".tsv" else ",")
        try:
            whole = csv.read_csv(
                self.path,
                read_options=csv.ReadOptions(autogenerate_column_names=not self.header),
                parse_options=csv.ParseOptions(delimiter=separator),
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            said = " ".join(str(error).split())
            raise UnreadableError(
                f"{self.path}: cannot be read as a table: {said}",
                "Every line needs as many values as the first; csv:path=…,separator=; names another.",
            ) from error
        names = whole.column_names if self.header else [f"c{n}" for n in range(1, whole.num_columns + 1)]
        if len(set(names)) < len(names):
            raise NnoptError(f"{self.path}: two columns have the same name")
        if not whole.num_rows:
            raise NnoptError(
                f"{self.path}: there is no data", "It has no line below the names of the columns."
            )
        columns = {
            name: column_of(whole.column(index), f"{self.path}: column {name!r}")
            for index, name in enumerate(names)
        }
        return Table(columns, origin=str(self.path))
