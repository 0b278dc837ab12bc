# A closed workspace for these endpoints, in Terraform; main.bicep is the same in Bicep.
#   terraform init && terraform apply -var group=… -var name=clip -var vnet_id=… -var subnet_id=…
# Clients and deployers reach it only from the network of `vnet_id`. Endpoints and jobs reach only Azure's
# own services and the hosts of `picture_hosts`.

terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.0"
    }
  }
}

provider "azurerm" {
  features {}
}

variable "group" {
  description = "An existing resource group"
  type        = string
}

variable "name" {
  description = "3 to 12 small letters and digits, from which all names here are made"
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{2,11}$", var.name))
    error_message = "3 to 12 small letters and digits, a letter first."
  }
}

variable "vnet_id" {
  description = "ARM id of the network of clients and deployers"
  type        = string
}

variable "subnet_id" {
  description = "ARM id of its subnet that takes the private endpoints"
  type        = string
}

variable "picture_hosts" {
  description = "Host names that images are downloaded from: images.example.org, *.example.org"
  type        = list(string)
  default     = []
}

data "azurerm_resource_group" "this" {
  name = var.group
}

data "azurerm_client_config" "this" {}

locals {
  group    = data.azurerm_resource_group.this.name
  location = data.azurerm_resource_group.this.location

  # The private endpoint of each service, and its DNS zones.
  private = {
    workspace = {
      id    = azurerm_machine_learning_workspace.this.id
      part  = "amlworkspace"
      zones = ["privatelink.api.azureml.ms", "privatelink.notebooks.azure.net"]
    }
    blob = {
      id    = azurerm_storage_account.this.id
      part  = "blob"
      zones = ["privatelink.blob.core.windows.net"]
    }
    file = {
      id    = azurerm_storage_account.this.id
      part  = "file"
      zones = ["privatelink.file.core.windows.net"]
    }
    vault = {
      id    = azurerm_key_vault.this.id
      part  = "vault"
      zones = ["privatelink.vaultcore.azure.net"]
    }
    registry = {
      id    = azurerm_container_registry.this.id
      part  = "registry"
      zones = ["privatelink.azurecr.io"]
    }
  }
}

resource "azurerm_log_analytics_workspace" "this" {
  name                = "${var.name}-logs"
  location            = local.location
  resource_group_name = local.group
}

resource "azurerm_application_insights" "this" {
  name                = "${var.name}-insights"
  location            = local.location
  resource_group_name = local.group
  workspace_id        = azurerm_log_analytics_workspace.this.id
  application_type    = "web"
}

resource "azurerm_storage_account" "this" {
  name                            = "${var.name}store"
  location                        = local.location
  resource_group_name             = local.group
  account_tier                    = "Standard"
  account_replication_type        = "LRS"
  public_network_access_enabled   = false
  allow_nested_items_to_be_public = false

  network_rules {
    default_action = "Deny"
    bypass         = ["AzureServices"]
  }
}

resource "azurerm_key_vault" "this" {
  name                          = "${var.name}-vault"
  location                      = local.location
  resource_group_name           = local.group
  tenant_id                     = data.azurerm_client_config.this.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true # secret injection needs roles, not access policies
  purge_protection_enabled      = true
  public_network_access_enabled = false

  network_acls {
    default_action = "Deny"
    bypass         = "AzureServices"
  }
}

resource "azurerm_container_registry" "this" {
  name                          = "${var.name}images"
  location                      = local.location
  resource_group_name           = local.group
  sku                           = "Premium" # private endpoints need it
  public_network_access_enabled = false
  network_rule_bypass_option    = "AzureServices"
}

resource "azurerm_machine_learning_workspace" "this" {
  name                          = var.name
  location                      = local.location
  resource_group_name           = local.group
  application_insights_id       = azurerm_application_insights.this.id
  storage_account_id            = azurerm_storage_account.this.id
  key_vault_id                  = azurerm_key_vault.this.id
  container_registry_id         = azurerm_container_registry.this.id
  image_build_compute_name      = "clip-builder" # a closed registry cannot build container images itself
  public_network_access_enabled = false

  identity {
    type = "SystemAssigned"
  }

  managed_network {
    isolation_mode = "AllowOnlyApprovedOutbound"
  }
}

resource "azurerm_machine_learning_compute_cluster" "builder" {
  name                          = "clip-builder"
  location                      = local.location
  machine_learning_workspace_id = azurerm_machine_learning_workspace.this.id
  vm_size                       = "Standard_D4as_v4"
  vm_priority                   = "Dedicated"

  scale_settings {
    min_node_count                       = 0
    max_node_count                       = 1
    scale_down_nodes_after_idle_duration = "PT15M"
  }
}

# Container images are built from PyPI and PyTorch's index; the other hosts serve images to embed.
resource "azurerm_machine_learning_workspace_network_outbound_rule_fqdn" "this" {
  for_each = toset(concat(
    ["pypi.org", "files.pythonhosted.org", "download.pytorch.org", "conda.anaconda.org"],
    var.picture_hosts,
  ))
  name             = trim(replace(each.value, "/[^a-zA-Z0-9]+/", "-"), "-")
  workspace_id     = azurerm_machine_learning_workspace.this.id
  destination_fqdn = each.value
}

resource "azurerm_private_dns_zone" "this" {
  for_each            = toset(flatten([for service in local.private : service.zones]))
  name                = each.value
  resource_group_name = local.group
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each              = azurerm_private_dns_zone.this
  name                  = var.name
  resource_group_name   = local.group
  private_dns_zone_name = each.value.name
  virtual_network_id    = var.vnet_id
}

resource "azurerm_private_endpoint" "this" {
  for_each            = local.private
  name                = "${var.name}-${each.key}"
  location            = local.location
  resource_group_name = local.group
  subnet_id           = var.subnet_id

  private_service_connection {
    name                           = each.key
    private_connection_resource_id = each.value.id
    subresource_names              = [each.value.part]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "default"
    private_dns_zone_ids = [for zone in each.value.zones : azurerm_private_dns_zone.this[zone].id]
  }
}

# The identity of endpoints (IDENTITY=…): it pulls container images, and reads models and secrets.
resource "azurerm_user_assigned_identity" "endpoint" {
  name                = "${var.name}-endpoint"
  location            = local.location
  resource_group_name = local.group
}

resource "azurerm_role_assignment" "endpoint" {
  for_each = {
    AcrPull                    = azurerm_container_registry.this.id
    "Storage Blob Data Reader" = azurerm_storage_account.this.id
    "Key Vault Secrets User"   = azurerm_key_vault.this.id
  }
  scope                = each.value
  role_definition_name = each.key
  principal_id         = azurerm_user_assigned_identity.endpoint.principal_id
}

output "identity" {
  description = "IDENTITY= of samples/azure/deploy-online.sh"
  value       = azurerm_user_assigned_identity.endpoint.id
}

output "workspace" {
  value = azurerm_machine_learning_workspace.this.name
}
