from typing import Annotated
import typer
def deploy(target: Annotated[str, typer.Option(help="Target key.")]) -> None:
    """x"""
