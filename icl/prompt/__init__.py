"""Templates: one file that renders as plain text and as chat turns, bound to a task, packed into the token budget."""

from .bind import BoundTemplate, bind
from .folder import TemplateInfo, list_templates, template_folders
from .lint import lint
from .pack import Unfit, pack
from .template import Template

__all__ = ["BoundTemplate", "Template", "TemplateInfo", "Unfit", "bind", "lint", "list_templates", "pack", "template_folders"]
