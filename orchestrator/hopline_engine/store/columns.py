"""How columns, constraints and indexes of the tables are declared, the same on both databases."""

from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    Index,
    Integer,
    MetaData,
    Text,
    column,
    or_,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import registry
from sqlalchemy.schema import CreateIndex
from sqlmodel import Field, SQLModel

_NAMES: Final = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
}

_BIG: Final = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite makes a primary key the row id only if its type is exactly INTEGER, which has 64 bits there."""

KEY_TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is looked up by prefix: compared byte by byte on both databases."""


def big(**options: Any) -> Any:
    """Declare an integer of 64 bits."""
    return Field(sa_type=_BIG, **options)


def big_key() -> Any:
    """Declare a part of the primary key that is an integer of 64 bits, given out by the engine."""
    return big(primary_key=True, sa_column_kwargs={"autoincrement": False})


def int_key() -> Any:
    """Declare a part of the primary key that is an integer, given out by the engine."""
    return Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


def text_column(**options: Any) -> Any:
    """Declare text of any length."""
    return Field(sa_type=Text, **options)


def time_column(**options: Any) -> Any:
    """Declare a time, in Unix seconds."""
    return Field(sa_type=Double, **options)


def state_is(*states: str) -> CheckConstraint:
    """Allow these states, the most common one first.

    Said with OR: for IN, SQLite fills a temporary table at each check, which made an insert half as dear again.
    """
    return CheckConstraint(or_(*[column("state", Text) == state for state in states]), name="state")


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """Index the rows of which something holds, in SQL that both databases understand."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where))


REFERS: Final = {
    "sqlite": "instr({column}, x'01') > 0",
    "postgresql": "position('\\x01'::bytea in {column}) > 0",
}
"""What holds of a value that refers to another one, by the name of the dialect; in the words of the indexes."""


def referring_index(name: str, *columns: str, value: str) -> Index:
    """Index the rows in which a value refers to another one, of which there are few."""
    where = {dialect: text(refers.format(column=value)) for dialect, refers in REFERS.items()}
    return Index(name, *columns, sqlite_where=where["sqlite"], info={"where": where["postgresql"]})


@compiles(CreateIndex, "postgresql")
def _create_index_on_postgres(create: CreateIndex, compiler: Any, **options: Any) -> str:
    """Make what is partial on SQLite partial here; said in the index itself, it would load this dialect everywhere."""
    index = create.element
    here = index.dialect_options["postgresql"]
    if here["where"] is None:
        here["where"] = index.info.get("where", index.dialect_options["sqlite"]["where"])
    return str(compiler.visit_create_index(create, **options))


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """Base of the tables; its metadata is the schema and holds nothing of anybody else's."""

    __tablename__: ClassVar[str]  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel takes a plain name
